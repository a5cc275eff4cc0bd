"""How the report page looks and what its script does: light and dark, at any width, with the keyboard alone."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d1d1f; --soft: #5c5c66; --line: #dcdce2; --card: #f7f7f9;
  --blue: #0072b2; --red: #c04f00; --green: #00805d; --good: #e0f2ea; --bad: #fbe6d8; --badink: #8f3400; --goodink: #00563e; }
@media (prefers-color-scheme: dark) { :root { --paper: #141417; --ink: #ececf0; --soft: #a3a3ad; --line: #36363d; --card: #1c1c20;
  --blue: #56b4e9; --red: #f0883e; --green: #2fc799; --good: #0f3328; --bad: #43220d; --badink: #ffc09a; --goodink: #9be5cb; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: .5rem 0; font-size: 1.7rem; } h2 { margin: 2.5rem 0 .25rem; font-size: 1.25rem; }
h3 { margin: 0 0 .25rem; font-size: 1rem; } p, figcaption { margin: .25rem 0 1rem; color: var(--soft); max-width: 60rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; } a { color: var(--blue); }
:focus-visible { outline: 3px solid var(--blue); outline-offset: 2px; }
figure { margin: 0; } .scroll { overflow-x: auto; }
figure.plot svg { display: block; width: 100%; height: auto; fill: currentColor; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; position: sticky; left: 0; min-width: 9.5rem; background: var(--paper); white-space: normal;
  overflow-wrap: anywhere; }
thead th { color: var(--soft); font-weight: 600; }
form { display: grid; grid-template-columns: minmax(0, 1fr); gap: .75rem; margin: 1rem 0; }
fieldset { display: flex; flex-wrap: wrap; gap: .5rem; min-width: 0; margin: 0; padding: .6rem; }
fieldset, select, article { border: 1px solid var(--line); border-radius: .5rem; } legend { color: var(--soft); }
select { max-width: 100%; padding: .4rem; background: var(--paper); color: var(--ink); font: inherit; }
label.cell { display: flex; flex-wrap: wrap; gap: .5rem; align-items: baseline; }
fieldset label { display: flex; gap: .4rem; align-items: center; padding: .35rem .6rem; background: var(--card); border-radius: .4rem; }
article { display: grid; grid-template-columns: 17rem minmax(0, 1fr); gap: .75rem 1.25rem; margin: 1rem 0; padding: 1rem;
  background: var(--card); }
article h3 { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline; }
.kind { padding: 0 .5rem; border-radius: .4rem; font-size: .85rem; background: var(--bad); color: var(--badink); }
.kind.neither { background: var(--good); color: var(--goodink); }
pre, code { margin: 0; font: .85rem/1.45 ui-monospace, Menlo, Consolas, monospace; } pre { white-space: pre-wrap; overflow-wrap: anywhere; }
pre.reasoning { align-self: start; max-height: 26rem; overflow: auto; padding: .6rem;
  border: 1px solid var(--line); border-radius: .3rem; background: var(--paper); }
mark { background: var(--bad); color: var(--badink); font-weight: 700; text-decoration: underline; }
dl { display: flex; flex-wrap: wrap; gap: .5rem 1.25rem; margin: .75rem 0 0; }
dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; }
svg.shelf { position: absolute; }
svg.picture, svg.graph { display: block; width: 100%; max-width: 16rem; }
svg.picture { border: 1px solid var(--line); } svg.pixels { image-rendering: pixelated; }
.frame { fill: none; stroke: #d55e00; stroke-width: 1.6; } .plate { fill: #d55e00; }
.said, .graph text { text-anchor: middle; dominant-baseline: central; font-family: ui-monospace, Menlo, Consolas, monospace; }
.said { fill: #ffffff; font-weight: 700; } .edges figcaption { margin: 0; font-size: .85rem; }
.graph line { stroke: var(--soft); stroke-width: 1; } .graph .missing { stroke: var(--red); stroke-width: 1.8; stroke-dasharray: 4 3; }
.graph .invented { stroke: var(--blue); stroke-width: 3; } .graph circle { fill: var(--card); stroke: var(--soft); }
.graph text { fill: var(--ink); font-size: 8px; }
@media (max-width: 44rem) { article { grid-template-columns: minmax(0, 1fr); } body { padding: .75rem; } }
"""

SCRIPT = """
const form = document.getElementById("filter"), cards = [...document.querySelectorAll("#cards article")];
function apply() {
  const kind = form.elements.kind.value, cell = form.elements.cell.value;
  const own = cards.filter(card => card.dataset.cell === cell);
  const fits = (card, wanted) => wanted === "all" || card.dataset.kind === wanted;
  for (const card of cards) card.hidden = card.dataset.cell !== cell || !fits(card, kind);
  for (const count of document.querySelectorAll("[data-count]"))
    count.textContent = own.filter(card => fits(card, count.dataset.count)).length;
  document.getElementById("shown").textContent = `${own.filter(card => fits(card, kind)).length} of the first ${own.length} test samples.`;
}
if (form) {
  form.addEventListener("change", apply);
  form.addEventListener("submit", event => event.preventDefault());
  apply();
}
"""
"""Shows the cards of one cell and one kind. Without it all cards are there to read."""
