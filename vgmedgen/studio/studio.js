element.addEventListener("click", (event) => {
  const card = event.target.closest("button[data-place]");
  if (!card) return;
  for (const other of element.querySelectorAll("button[data-place]")) {
    other.setAttribute("aria-pressed", String(other === card));
  }
  trigger("select", { place: Number(card.dataset.place) });
});
