// What there is to say about the whole.

function overview() {
  document.documentElement.setAttribute("data-command", data.command);
  byId("title").textContent = data.title;
  byId("command").textContent = `per-inject ${data.command} ${data.version}`;
  byId("facts").replaceChildren(
    ...data.facts.map(([label, value]) => element("div", {}, element("dt", {}, label), element("dd", { title: value }, value))),
  );
  const notes = data.notes.map((note) =>
    element("li", { class: note.is_warning ? "warning" : "note" }, element("span", { class: "sign", "aria-hidden": "true" }, note.is_warning ? "⚠" : "ℹ"), note.text),
  );
  const most = 3;
  byId("notes").replaceChildren(...notes.slice(0, most));
  if (notes.length > most) {
    const more = button({ class: "more" }, `${notes.length - most} more`, () => byId("notes").replaceChildren(...notes));
    byId("notes").append(element("li", {}, more));
  }
  // On a small screen the picture comes first.
  if (window.innerWidth < 760) byId("about").open = false;
}
