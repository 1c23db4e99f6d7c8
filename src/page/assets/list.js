// The list: only the rows in sight are in the document, so that 100,000 of them cost nothing.

const list = (() => {
  const height = 46;
  // Browsers cannot scroll further than some ten million pixels.
  const most = 200000;
  let [group, query, found, active, drawn] = [0, "", [], 0, ""];
  let opened = () => {};

  function show() {
    found = matching(group, query);
    active = 0;
    byId("list").scrollTop = 0;
    drawn = "";
    byId("room").style.height = `${Math.min(found.length, most) * height}px`;
    const more = found.length > most ? `; ${number(found.length - most)} more, refine the search` : "";
    byId("count").textContent = `${plural(found.length, "row")}${more}`;
    draw();
  }

  function draw() {
    const box = byId("list");
    const first = Math.max(0, Math.floor(box.scrollTop / height) - 4);
    const last = Math.min(found.length, most, first + Math.ceil(box.clientHeight / height) + 9);
    const state = `${first} ${last} ${active}`;
    if (state === drawn) return;
    drawn = state;
    const room = byId("room");
    room.replaceChildren(...Array.from({ length: Math.max(0, last - first) }, (_, i) => option(first + i)));
    if (found.length) box.setAttribute("aria-activedescendant", `option-${active}`);
    else box.removeAttribute("aria-activedescendant");
    if (!found.length) room.append(element("p", { class: "nothing" }, query ? "Nothing matches." : "There is none."));
  }

  function option(at) {
    const row = rowAt(found[at]);
    const mark = marks[row.mark] || marks[0];
    const family = row.node === null ? "" : `family-${familyOf(row.node)}`;
    const made = element(
      "div",
      {
        class: `row mark-${mark.style} ${family} ${at === active ? "active" : ""}`,
        role: "option",
        id: `option-${at}`,
        "aria-selected": at === active ? "true" : "false",
        "aria-setsize": found.length,
        "aria-posinset": at + 1,
      },
      element("span", { class: "sign", role: mark.name ? "img" : null, "aria-label": mark.name || null, title: mark.name || null }, mark.sign),
      element("span", { class: "title", title: row.title }, row.title),
      element("span", { class: "side" }, row.side),
      element("span", { class: "sub", title: row.sub }, row.sub),
    );
    made.style.transform = `translateY(${at * height}px)`;
    made.addEventListener("click", () => {
      move(at);
      opened(found[at]);
    });
    return made;
  }

  function move(to) {
    active = Math.max(0, Math.min(to, Math.min(found.length, most) - 1));
    const box = byId("list");
    const [top, bottom] = [active * height, (active + 1) * height];
    if (top < box.scrollTop) box.scrollTop = top;
    if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
    draw();
  }

  function key(event) {
    const page = Math.max(1, Math.floor(byId("list").clientHeight / height) - 1);
    const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key === "Enter" && found.length) opened(found[active]);
    else if (event.key in steps) move(active + steps[event.key]);
    else return false;
    return true;
  }

  function chips() {
    const all = [...groups.map((g, i) => [g, i]), [{ label: "All", about: "everything", mark: 0 }, -1]];
    byId("groups").replaceChildren(
      ...all.map(([g, i]) => {
        const sign = (marks[g.mark] || marks[0]).sign;
        const size = matching(i, "").length;
        if (!size) return "";
        const count = number(size);
        return button(
          { class: `chip mark-${marks[g.mark].style}`, title: g.about, "aria-pressed": i === group ? "true" : "false" },
          element("span", {}, sign ? element("span", { class: "sign" }, sign) : null, `${g.label} `, element("b", {}, count)),
          () => {
            group = i;
            chips();
            show();
          },
        );
      }),
    );
  }

  return {
    key,
    start(open) {
      opened = open;
      const first = groups.findIndex((g, i) => matching(i, "").length > 0);
      group = Math.max(0, first);
      chips();
      let waiting = 0;
      byId("search").addEventListener("input", () => {
        clearTimeout(waiting);
        waiting = setTimeout(() => {
          query = byId("search").value;
          // A search looks everywhere, unless a group was chosen that has what is sought.
          if (query && !matching(group, query).length) {
            group = -1;
            chips();
          }
          show();
        }, rowCount > 20000 ? 120 : 0);
      });
      byId("list").addEventListener("scroll", draw, { passive: true });
      new ResizeObserver(draw).observe(byId("list"));
      show();
    },
    // Brings a row into sight, if it is listed.
    reveal(test) {
      const at = found.findIndex(test);
      if (at >= 0) move(at);
    },
  };
})();
