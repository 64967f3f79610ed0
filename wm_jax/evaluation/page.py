"""Style and script of the report: one calm page, light or dark, that needs nothing but itself."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --ink: #1c1d21; --soft: #5d6068; --faint: #e4e4df; --panel: #f5f5f1;
  --line: #6b7280; --tested-1: #1d4ed8; --tested-2: #b4235a; --tested-3: #0e7c86;
  --tested-4: #7c3aed; --copy-last: #8a8d94;
  --mean-image: #b9a98c; --context-median: #8f7fb8; --constant-velocity: #c2650c;
  --see-then-simulate: #15803d; --good: #15803d; --bad: #b42318;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131417; --ink: #e9e9e6; --soft: #a0a3ab; --faint: #2c2e34; --panel: #1b1d21;
    --line: #9ca3af; --tested-1: #7aa2ff; --tested-2: #f472a6; --tested-3: #4fd1c5;
    --tested-4: #b794f6; --copy-last: #8f939c;
    --mean-image: #a8977a; --context-median: #a99ad1; --constant-velocity: #f0a050;
    --see-then-simulate: #5cc98a; --good: #5cc98a; --bad: #ff8a7a;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 48px 24px 72px }
.eyebrow { color: var(--soft); font-size: 14px; margin: 0 }
h1 { font-size: 27px; line-height: 1.3; font-weight: 640; letter-spacing: -.01em;
  margin: 8px 0 14px; max-width: 34em; text-wrap: balance }
h2 { font-size: 18px; font-weight: 640; margin: 52px 0 4px }
p { margin: 6px 0; max-width: 68ch }
.note, figcaption { color: var(--soft); font-size: 14px }
.verdict { display: flex; gap: 10px; align-items: baseline; border-left: 3px solid var(--good);
  padding: 2px 0 2px 14px; margin: 18px 0 0; font-size: 14.5px }
.verdict.failed { border-color: var(--bad) }
.verdict b { white-space: nowrap }
figure { margin: 14px 0 0 }
.scroll { overflow-x: auto }
.players { display: grid; grid-template-columns: repeat(3, minmax(90px, 1fr)); gap: 28px;
  max-width: 700px }
.player h3 { font-size: 14px; font-weight: 600; margin: 0 0 2px }
.player .note { margin: 0 0 8px }
.player .rows { display: grid; gap: 6px }
.screen { position: relative; aspect-ratio: 1; overflow: hidden; border-radius: 3px;
  background: var(--panel) }
.screen img { position: absolute; top: 0; left: 0; height: 100%; max-width: none;
  image-rendering: pixelated; transform: translateX(calc(var(--frame) * -100% / var(--frames))) }
.screen span { position: absolute; left: 6px; bottom: 4px; font-size: 11px; color: #fff;
  text-shadow: 0 0 3px #000, 0 0 3px #000 }
.controls { display: flex; gap: 12px; align-items: center; margin: 14px 0 0; max-width: 700px }
.controls input { flex: 1; accent-color: var(--tested-1) }
.controls button { font: inherit; font-size: 14px; color: var(--ink); background: var(--panel);
  border: 1px solid var(--faint); border-radius: 6px; padding: 3px 12px; min-width: 74px }
.controls output { font-size: 14px; color: var(--soft); min-width: 9em;
  font-variant-numeric: tabular-nums }
table.strip { border-collapse: separate; border-spacing: 4px }
table.strip th { font-size: 12px; font-weight: 500; color: var(--soft); padding: 0 6px 0 0;
  text-align: center }
table.strip th[scope=row] { text-align: right; white-space: nowrap }
table.strip td { padding: 0 }
table.strip img { display: block; width: 96px; height: 96px; image-rendering: pixelated;
  border-radius: 2px }
table.strip td.shown { padding-right: 12px }
.charts { display: grid; gap: 26px 34px;
  grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)) }
.charts h3 { font-size: 14.5px; font-weight: 600; margin: 0 0 6px }
.charts h3 span { font-weight: 400; color: var(--soft); margin-left: 8px }
svg.chart { width: 100%; height: auto; display: block; overflow: visible }
svg text { font: 11.5px system-ui, sans-serif; fill: var(--soft) }
svg .grid { stroke: var(--faint); fill: none } svg .axis { stroke: var(--soft); fill: none }
svg .band { opacity: .15; stroke: none }
svg .curve { fill: none; stroke-width: 1.5; stroke-linejoin: round }
svg .curve.strong { stroke-width: 2.6 } svg .name.strong { font-weight: 650 }
svg .leader { fill: none; stroke-width: 1; opacity: .55 }
table.numbers { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14.5px;
  margin-top: 8px }
table.numbers caption { text-align: left; font-weight: 600; padding: 18px 0 4px }
table.numbers caption span { font-weight: 400; color: var(--soft); margin-left: 8px }
table.numbers th, table.numbers td { padding: 5px 16px 5px 0; text-align: right;
  border-bottom: 1px solid var(--faint); vertical-align: baseline; white-space: nowrap }
table.numbers th { font-weight: 500; color: var(--soft) }
table.numbers tr:first-child th { white-space: normal; max-width: 11em; vertical-align: bottom }
table.numbers th[scope=row] { text-align: left; color: var(--ink); padding-right: 30px }
table.numbers tr.tested th, table.numbers tr.tested td { font-weight: 650 }
table.numbers small { color: var(--soft); font-weight: 400; font-size: 12px; margin-left: 5px }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 8px }
.good { color: var(--good) } .bad { color: var(--bad) }
details { margin: 10px 0 } summary { cursor: pointer; font-size: 14.5px }
pre { background: var(--panel); border-radius: 6px; padding: 12px 14px; overflow-x: auto;
  font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap }
@media (max-width: 560px) { .charts { grid-template-columns: 1fr } main { padding: 28px 16px } }
@media print { .controls { display: none } }
"""

SCRIPT = """
(() => {
  const root = document.querySelector('.players');
  const slider = document.querySelector('.controls input');
  if (!root || !slider) return;
  const button = document.querySelector('.controls button');
  const told = document.querySelector('.controls output');
  const context = +slider.dataset.context, last = +slider.max;
  const show = frame => {
    root.style.setProperty('--frame', frame);
    slider.value = frame;
    told.textContent = frame < context ? `context, frame ${frame + 1} of ${context}`
      : `predicted, step ${frame - context + 1}`;
  };
  let timer = null;
  const play = on => {
    clearInterval(timer);
    timer = on ? setInterval(() => show((+slider.value + 1) % (last + 1)), 1000 / 12) : null;
    button.textContent = on ? 'Pause' : 'Play';
  };
  slider.addEventListener('input', () => { play(false); show(+slider.value); });
  button.addEventListener('click', () => play(!timer));
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  show(still ? Math.min(last, context + 4) : 0);
  play(!still);
})();
"""
