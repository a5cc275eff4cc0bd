// Show the cards of one cell and one category. Without scripts all cards are shown.
const form = document.getElementById("filter"), cards = [...document.querySelectorAll("#cards article")];

function apply() {
  const category = form.elements.category.value, cell = form.elements.cell.value;
  const own = cards.filter(card => card.dataset.cell === cell);
  const fits = (card, wanted) => wanted === "all" || card.dataset.category === wanted;
  for (const card of cards) card.hidden = card.dataset.cell !== cell || !fits(card, category);
  for (const count of document.querySelectorAll("[data-count]"))
    count.textContent = own.filter(card => fits(card, count.dataset.count)).length;
  const num_shown = own.filter(card => fits(card, category)).length;
  document.getElementById("shown").textContent = `${num_shown} of the first ${own.length} test samples.`;
}

if (form) {
  form.addEventListener("change", apply);
  form.addEventListener("submit", event => event.preventDefault());
  apply();
}
