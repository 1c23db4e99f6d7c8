// Everything about one thing, at the right.

const panel = (() => {
  let [openNode, openPicture] = [() => {}, () => {}];
  let before = null;

  const section = (title, ...children) => element("section", {}, element("h3", {}, title), ...children);
  const pairs = (list) => element("dl", {}, ...list.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]));
  const nodeButton = (node) => button({ class: "to" }, `${opOf(node)}  ${titleOf(node)}`.trim(), () => openNode(node));

  // A value with its shape, and where it comes from or goes to.
  function valueLine(slot, value, sign, isOutput) {
    if (value < 0) return element("li", { class: "left-out" }, element("span", { class: "slot" }, slot), "left out");
    const maker = makers[value];
    const origin = originOf(value) ? origins[originOf(value)] : "";
    const made = element(
      "li",
      { class: sign ? `mark-${marks[sign].style}` : null },
      element("span", { class: "slot" }, sign ? marks[sign].sign : "", slot),
      element("span", { class: "value" }, values.name[value]),
      element("span", { class: "dims" }, shapeOf(value)),
    );
    if (!isOutput && maker >= 0) made.append(element("span", { class: "way" }, "from ", nodeButton(maker)));
    else if (origin && !isOutput) made.append(element("span", { class: "way" }, roleOf(value) || origin));
    if (isOutput) {
      const read = readersOf(value);
      read.slice(0, 8).forEach((node) => made.append(element("span", { class: "way" }, "to ", nodeButton(node))));
      if (read.length > 8) made.append(element("span", { class: "way" }, `and ${plural(read.length - 8, "more reader")}`));
      if (values.kind[value] & 1) made.append(element("span", { class: "way" }, "graph output"));
    }
    return made;
  }

  function ofNode(node) {
    const mark = marks[nodes.mark[node]];
    const former = new Map((nodes.former[node] || []).map(([slot, value]) => [slot, value]));
    const fresh = new Set(nodes.fresh[node] || []);
    const inputs = nodes.inputs[node].flatMap((value, slot) => [
      ...(former.has(slot) ? [valueLine(slot, former.get(slot), 2)] : []),
      valueLine(slot, value, fresh.has(slot) ? 1 : 0),
    ]);
    former.forEach((value, slot) => slot >= nodes.inputs[node].length && inputs.push(valueLine(slot, value, 2)));
    const captured = (nodes.captured[node] || []).map((value) => valueLine("in its body", value, 0));
    const attributes = data.attributes[nodes.attributes[node]];
    const many = standsFor(node);
    if (many) return [section("Nodes", pairs([["", nodes.name[node] || titleOf(node)]]))];
    return [
      section("Node", pairs([
        ...(nodes.name[node] ? [["name", nodes.name[node]]] : []),
        ["operator", domainOf(node) ? `${domainOf(node)} · ${opOf(node)}` : opOf(node)],
        // Positions in a page of a difference are those of neither model.
        ...(data.command === "inspect" ? [["position", number(node + 1)]] : []),
        ...(mark.name ? [["", `${mark.sign} ${mark.name}`]] : []),
      ])),
      attributes.length ? section("Attributes", pairs(attributes)) : null,
      inputs.length || captured.length ? section("Inputs", element("ul", { class: "values" }, ...inputs, ...captured)) : null,
      section("Outputs", element("ul", { class: "values" }, ...nodes.outputs[node].map((v, slot) => valueLine(slot, v, 0, true)))),
      nodes.docs[node] ? section("Documentation", element("p", { class: "doc" }, nodes.docs[node])) : null,
    ];
  }

  function ofValue(value) {
    const about = [["shape", shapeOf(value)]];
    if (originOf(value)) about.push(["is", origins[originOf(value)]]);
    if (isOutput(value)) about.push(["", "graph output"]);
    if (roleOf(value)) about.push(["role", roleOf(value)]);
    const read = readersOf(value);
    return [
      section("Value", pairs([["name", values.name[value]], ...about])),
      makers[value] >= 0 ? section("Made by", nodeButton(makers[value])) : null,
      read.length ? section("Read by", element("ul", { class: "values" }, ...read.slice(0, 20).map((n) => element("li", {}, nodeButton(n))))) : null,
      read.length > 20 ? element("p", {}, `and ${plural(read.length - 20, "more node")}`) : null,
    ];
  }

  function show(title, hash, children) {
    const box = byId("panel");
    if (box.hidden) before = document.activeElement;
    const close = button({ class: "close", "aria-label": "Close" }, "×", hide);
    const anchor = element("a", { href: hash, title: "A link to this, to share or to keep" }, "link");
    box.replaceChildren(element("header", {}, element("h2", { tabindex: -1 }, title), anchor, close), ...children.filter(Boolean));
    box.scrollTop = 0;
    box.hidden = false;
  }

  function hide() {
    if (byId("panel").hidden) return false;
    byId("panel").hidden = true;
    if (before && before.isConnected) before.focus({ preventScroll: true });
    return true;
  }

  return {
    hide,
    start(actions) {
      [openNode, openPicture] = [actions.node, actions.picture];
    },
    // `row` tells more about a node or a value, or stands for itself.
    show(target, hash) {
      const row = target.row;
      const facts = row && row.facts.length ? [section(data.command === "diff" ? groups[row.group].label : row.title, pairs(row.facts))] : [];
      if (target.node !== null) show(opOf(target.node) || titleOf(target.node), hash, [...facts, ...ofNode(target.node)]);
      else if (target.value !== null) show(lastWord(values.name[target.value]), hash, [...facts, ...ofValue(target.value)]);
      else {
        const opens = target.group ? button({ class: "opens" }, "Show its nodes", () => openPicture(target.group)) : null;
        show(row.title, hash, [row.sub ? element("p", { class: "sub" }, row.sub) : null, pairs(row.facts), opens]);
      }
    },
    focus() {
      const heading = byId("panel").querySelector("h2");
      if (heading) heading.focus({ preventScroll: true });
    },
  };
})();
