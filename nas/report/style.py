"""The look of the page: one style sheet, light and dark, from 360 px upwards, nothing loaded from outside."""

CSS = """
:root {
  --paper: #fbfaf8; --card: #ffffff; --ink: #1d2126; --soft: #59616b; --line: #e3e0da; --grid: #eceae5;
  --winner: #0b6b7d; --winner-wash: #d9edf0; --baseline: #ad5208; --baseline-wash: #f8e8d9;
  --random: #6a4ba3; --hand: #3f6b2f; --dot: #7d858e; --warn: #8a4b08; --code: #f3f1ec;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1b1f23; --ink: #e9e7e2; --soft: #a3abb3; --line: #30363c; --grid: #272c31;
    --winner: #5cc3d6; --winner-wash: #173d45; --baseline: #eda45c; --baseline-wash: #46301b;
    --random: #b9a0ea; --hand: #9cc98a; --dot: #929aa3; --warn: #e9b872; --code: #23282d;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main, header.top, footer { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
a { color: var(--winner); text-underline-offset: 3px; }
a:focus-visible, summary:focus-visible {
  outline: 2px solid var(--winner); outline-offset: 3px; border-radius: 3px;
}
header.top { padding-top: 44px; }
h1 { font-size: 15px; font-weight: 600; margin: 0; letter-spacing: .01em; }
.meta { color: var(--soft); font-size: 14px; margin: 2px 0 0; }
h2 { font-size: 23px; line-height: 1.25; font-weight: 650; letter-spacing: -.012em; margin: 0 0 6px;
  text-wrap: balance; }
h3 { font-size: 15px; line-height: 1.35; font-weight: 600; margin: 0 0 8px; }
section { padding: 40px 0 0; scroll-margin-top: 8px; }
.lead { color: var(--soft); margin: 0 0 18px; max-width: 70ch; text-wrap: pretty; }
.note { color: var(--soft); font-size: 14px; line-height: 1.5; margin: 10px 0 0; max-width: 84ch; }
.warn { color: var(--warn); }
.verdict { padding: 30px 0 0; }
.verdict .sentence {
  font-size: clamp(27px, 5.2vw, 42px); line-height: 1.15; font-weight: 680; letter-spacing: -.022em;
  margin: 0 0 12px; max-width: 24ch; text-wrap: balance;
}
.verdict .detail { color: var(--soft); font-size: 17px; margin: 0 0 20px; max-width: 62ch; }
.verdict .card { max-width: 620px; padding: 16px 20px 12px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 18px 20px; }
.grid { display: grid; gap: 16px; grid-template-columns: minmax(0, 1fr); }
nav {
  display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 26px 0 0; padding: 12px 0; font-size: 14px;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line);
}
nav a { color: var(--soft); text-decoration: none; padding: 3px 0; }
nav a:hover { color: var(--ink); text-decoration: underline; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 15px; }
th, td { text-align: right; padding: 8px 0 8px 14px; vertical-align: baseline;
  border-top: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th, thead td { border-top: 0; font-weight: 600; font-size: 14px; padding-top: 0; }
tbody th { font-weight: 400; }
tbody tr:last-child > * { padding-bottom: 0; }
tr.main > * { font-weight: 650; font-size: 17px; }
tr.first-of-group > * { border-top-color: var(--soft); }
td small { color: var(--soft); font-size: .86em; font-weight: 400; white-space: nowrap; }
.who::before {
  content: ""; display: inline-block; width: 9px; height: 9px; border-radius: 3px; margin-right: 7px;
}
.who.winner::before { background: var(--winner); }
.who.baseline::before { background: var(--baseline); }
.who.random::before { background: var(--random); }
.who.hand::before { background: var(--hand); }
.sub { display: block; color: var(--soft); font-weight: 400; font-size: 12.5px; line-height: 1.35;
  overflow-wrap: anywhere; }
code, pre {
  font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere;
}
code { font-size: .88em; background: var(--code); padding: .1em .35em; border-radius: 4px; }
pre {
  background: var(--code); border-radius: 8px; padding: 12px 14px; margin: 8px 0 14px; font-size: 13px;
  line-height: 1.5; white-space: pre-wrap;
}
pre code { background: none; padding: 0; font-size: inherit; }
.command { display: block; padding-left: 2ch; text-indent: -2ch; }
.command span { display: inline-block; max-width: 100%; text-indent: 0; white-space: normal; }
details { border-top: 1px solid var(--line); margin-top: 14px; padding-top: 10px; }
details table { margin-top: 14px; max-width: 640px; }
summary { cursor: pointer; font-weight: 600; font-size: 15px; }
dl {
  display: grid; grid-template-columns: minmax(0, max-content) minmax(0, 1fr); gap: 6px 18px; margin: 0;
  font-size: 15px;
}
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.missing {
  border: 1px dashed var(--soft); border-radius: 12px; padding: 14px 18px; margin: 12px 0 0; color: var(--soft);
}
.missing code { color: var(--ink); }
figure { margin: 0; }
figcaption { color: var(--soft); font-size: 13px; line-height: 1.45; margin-top: 8px; }
svg { display: block; width: 100%; height: auto; overflow: hidden; }
svg text { font-family: inherit; fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg text.small { font-size: 11px; }
svg text.strong { fill: var(--ink); font-weight: 600; }
svg text.halo {
  font-weight: 600; paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round;
}
svg .axis { stroke: var(--line); }
svg .gridline { stroke: var(--grid); }
svg .zero { stroke: var(--soft); }
.s-winner { stroke: var(--winner); }
.s-baseline { stroke: var(--baseline); }
.s-random { stroke: var(--random); }
.s-hand { stroke: var(--hand); }
.s-soft { stroke: var(--dot); }
.f-winner, svg text.f-winner, tspan.f-winner { fill: var(--winner); }
.f-baseline, svg text.f-baseline { fill: var(--baseline); }
.f-random, svg text.f-random { fill: var(--random); }
.f-hand, svg text.f-hand { fill: var(--hand); }
.f-soft { fill: var(--dot); }
.w-winner { fill: var(--winner-wash); }
.w-baseline { fill: var(--baseline-wash); }
.w-card { fill: var(--card); }
.n { fill: none; }
.desk { display: none; }
.phone { max-width: 460px; }
.legend {
  display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13.5px; color: var(--soft); margin: 0 0 10px;
  padding: 0; list-style: none;
}
.legend svg { width: 16px; height: 16px; display: inline-block; vertical-align: -3px; margin-right: 6px; }
.key { stroke-width: 2; }
.erf { display: grid; gap: 20px; }
.erf-level { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px 10px; }
.erf-level h3 { grid-column: 1 / -1; margin: 0; }
.erf-level svg, .sample svg { border-radius: 8px; }
.sample { display: grid; gap: 12px; grid-template-columns: minmax(0, 1fr); }
ol.next { margin: 0; padding-left: 22px; }
ol.next li { margin: 0 0 10px; padding-left: 4px; }
ul.plain { margin: 10px 0 0; padding-left: 20px; font-size: 15px; }
footer { color: var(--soft); font-size: 13px; padding-top: 44px; padding-bottom: 48px; }
@media (min-width: 480px) { .sample.pair { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media (min-width: 700px) {
  .two { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  section { padding-top: 56px; }
  .card { padding: 22px 26px; }
  .erf { grid-template-columns: repeat(var(--levels), minmax(0, 1fr)); gap: 16px; }
  .erf-level { grid-template-columns: minmax(0, 1fr); align-content: start; }
  table { font-size: 16px; }
  th, td { padding-left: 26px; }
}
@media (min-width: 920px) { .desk { display: block; } .phone { display: none; } }
.scroll { overflow-x: auto; }
@media (max-width: 479px) {
  body { font-size: 15.5px; }
  main, header.top, footer { padding-left: 16px; padding-right: 16px; }
  .card, .verdict .card { padding: 16px; }
  table { font-size: 13.5px; }
  th, td { padding: 7px 0 7px 8px; }
  thead th { font-size: 12px; }
  .contenders .who { white-space: nowrap; }
  .contenders { table-layout: fixed; }
  .contenders.wide { width: 580px; }
  .contenders thead td { width: 27%; }
  .who::before { width: 8px; height: 8px; margin-right: 4px; }
  tr.main > * { font-size: 15px; }
  td small { display: block; line-height: 1.2; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: 10px; }
}
@media print { nav { display: none; } .card { break-inside: avoid; } }
"""
