// One picture: its edges, its boxes, and what happens to them.

const picture = (() => {
  let shown = -1;
  // The boxes that are drawn, by their position in the picture.
  let drawnBoxes = [];
  let openNode = () => {};
  let openRow = () => {};
  let openValue = () => {};

  // Bends leave and enter vertically, as the boxes' sides do.
  function pathOf(points) {
    let d = `M${points[0]} ${points[1]}`;
    for (let i = 2; i < points.length; i += 2) {
      const [fromX, fromY, x, y] = points.slice(i - 2, i + 2);
      const middle = (fromY + y) / 2;
      d += fromX === x || fromY === y ? `L${x} ${y}` : `C${fromX} ${middle} ${x} ${middle} ${x} ${y}`;
    }
    return d;
  }

  function lineOf({ from, to, named, more, mark, points, at }) {
    if (points.length < 4) return null;
    const d = pathOf(points);
    const style = `edge mark-${mark.style}`;
    const made = drawn("g", { class: style, "data-from": from, "data-to": to, "data-at": at }, drawn("path", { class: "reach", d }), drawn("path", { class: "stroke", d }));
    const [x, y] = points.slice(-2);
    const up = points[points.length - 3] > y ? 1 : -1;
    made.append(drawn("path", { class: "arrow", d: `M${x} ${y}l-4 ${7 * up}h8z` }));
    const tell = () => [
      ...named.map((v) => `${mark.sign} ${values.name[v]}  ${shapeOf(v)}`.trim()),
      ...(more ? [`and ${plural(more, "other value")}`] : []),
    ];
    made.addEventListener("pointerenter", (event) => tip.show(tell(), event));
    made.addEventListener("pointermove", (event) => tip.follow(event));
    made.addEventListener("pointerleave", () => tip.hide());
    return made;
  }

  // The shape of what leaves a box, once for each value.
  function labels(scene, lines) {
    // Where lines turn right the label stands at the left, unless others turn left.
    const sides = new Map();
    for (const { from, named, points } of lines) {
      const key = `${from} ${named[0]}`;
      const side = sides.get(key) || { right: false, left: false };
      const turn = (points.find((x, i) => i % 2 === 0 && Math.abs(x - points[0]) > 8) || points[0]) - points[0];
      sides.set(key, { right: side.right || turn > 0, left: side.left || turn < 0 });
    }
    const told = new Set();
    const made = [];
    for (const { from, named, more, points } of lines) {
      const [kind] = scene.boxes[from];
      const key = `${from} ${named[0]}`;
      const isOne = named.length === 1 && !more && (kind === kinds.node || kind === kinds.earlier);
      if (!isOne || told.has(key) || points.length < 4) continue;
      told.add(key);
      const text = dimsOf(named[0]);
      const isLeft = sides.get(key).right && !sides.get(key).left;
      if (text) made.push(drawnText(shortened(text, 110, fonts.line), points[0] + (isLeft ? -6 : 6), points[1] + 13, "shape", isLeft ? "end" : null));
    }
    return made;
  }

  function draw(index) {
    const scene = scenes[index];
    shown = index;
    drawnBoxes = scene.boxes.map((box, at) => {
      const { parts, style, label } = boxOf(box);
      const made = drawn("g", { class: `box ${style}`, transform: `translate(${box[2]} ${box[3]})`, role: "button", tabindex: at === 0 ? 0 : -1, "aria-label": label, "data-at": at }, ...parts);
      made.addEventListener("click", () => act(at));
      made.addEventListener("focus", () => lit(at));
      return made;
    });
    const lines = linesOf(scene);
    const layer = drawn("g", { class: "layer" }, ...lines.map(lineOf).filter(Boolean), ...labels(scene, lines), ...drawnBoxes);
    byId("picture").replaceChildren(layer);
    view.setSize(...scene.size);
    trail(index);
    legend(scene);
  }

  // What a box opens.
  function act(at) {
    const [kind, id] = scenes[shown].boxes[at];
    if (kind === kinds.node) openNode(id);
    else if (kind === kinds.scene) open(id);
    else if (kind === kinds.ghost) openRow(id);
    else if (kind === kinds.input || kind === kinds.output) openValue(id);
    else if (id >= 0) openNode(id);
    lit(at);
  }

  function open(index) {
    const from = shown;
    draw(index);
    view.fit(false);
    // Coming back out, the box that was open is what one looks for.
    const back = scenes[index].boxes.findIndex(([kind, id]) => kind === kinds.scene && id === from);
    if (back >= 0) focusOn(back);
    link.note({ picture: index });
  }

  // Marks a box and what it is joined with.
  function lit(at) {
    for (const made of byId("picture").querySelectorAll(".lit, .near")) made.classList.remove("lit", "near");
    if (!drawnBoxes[at]) return;
    drawnBoxes.forEach((made, i) => made.setAttribute("tabindex", i === at ? 0 : -1));
    drawnBoxes[at].classList.add("lit");
    for (const made of byId("picture").querySelectorAll(`.edge[data-from="${at}"], .edge[data-to="${at}"]`)) made.classList.add("near");
  }

  function focusOn(at) {
    lit(at);
    view.centre(scenes[shown].boxes[at][2], scenes[shown].boxes[at][3]);
  }

  // Brings the box of a node, or of something else, into sight; false where no picture has it.
  function find(scene, test) {
    if (scene < 0) return false;
    const at = scenes[scene].boxes.findIndex(test);
    if (at < 0) return false;
    if (scene !== shown) draw(scene);
    focusOn(at);
    return true;
  }

  // The picture of what is one box until it is opened, by one of its nodes; 0 where there is none.
  function groupOf(node) {
    let scene = nodes.scene[node];
    while (scene > 0 && !scenes[scene].is_group) scene = scenes[scene].parent;
    return Math.max(0, scene);
  }

  const findGroup = (scene) => find(scenes[scene].parent, ([kind, id]) => kind === kinds.scene && id === scene);

  function trail(index) {
    const way = [];
    for (let i = index; i !== null; i = scenes[i].parent) way.unshift(i);
    const title = (i) => (i === 0 ? "Whole graph" : scenes[i].title);
    byId("trail").replaceChildren(
      ...way.map((i) =>
        i === index
          ? element("span", { "aria-current": "location" }, shortened(title(i), 320, fonts.line))
          : button({}, shortened(title(i), 200, fonts.line), () => open(i)),
      ),
    );
    byId("trail").hidden = way.length < 2;
  }

  function legend(scene) {
    const used = new Set(scene.boxes.filter(([kind]) => kind === kinds.node || kind === kinds.quiet).map(([, id]) => nodes.mark[id]));
    linesOf(scene).forEach(({ mark }) => used.add(marks.indexOf(mark)));
    scene.boxes.filter(([kind]) => kind === kinds.scene).forEach(([, id]) => scenes[id].marks.forEach(([m]) => used.add(m)));
    const items = marks.filter((mark, i) => i && used.has(i)).map((mark) => element("li", { class: `mark-${mark.style}` }, element("span", { class: "sign" }, mark.sign), ` ${mark.name}`));
    if (scene.boxes.some(([kind]) => kind === kinds.ghost)) items.push(element("li", { class: "mark-tap" }, element("span", { class: "dash" }), " where PER would sit"));
    byId("legend").replaceChildren(...items);
  }

  // Arrow keys go to the nearest box in their direction; distance across it counts twice.
  function step(dx, dy) {
    const boxes = scenes[shown].boxes;
    const at = drawnBoxes.findIndex((made) => made.getAttribute("tabindex") === "0");
    const [, , x, y] = boxes[at] || boxes[0];
    let [best, least] = [-1, Infinity];
    boxes.forEach(([, , toX, toY], i) => {
      const along = (toX - x) * dx + (toY - y) * dy;
      const across = Math.abs((toX - x) * dy) + Math.abs((toY - y) * dx);
      if (i !== at && along > 4 && along + 2 * across < least) [best, least] = [i, along + 2 * across];
    });
    if (best < 0) return;
    focusOn(best);
    drawnBoxes[best].focus({ preventScroll: true });
  }

  function key(event) {
    const steps = { ArrowDown: [0, 1], ArrowUp: [0, -1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    const at = drawnBoxes.indexOf(document.activeElement);
    if (event.key in steps) step(...steps[event.key]);
    else if ((event.key === "Enter" || event.key === " ") && at >= 0) act(at);
    else return false;
    return true;
  }

  return {
    key,
    open,
    find,
    groupOf,
    findGroup,
    get shown() {
      return shown;
    },
    start(actions) {
      [openNode, openRow, openValue] = [actions.node, actions.row, actions.value];
      view.start();
      draw(0);
      view.fit(false);
    },
  };
})();

// What an edge is, beside the pointer.
const tip = {
  show(lines, event) {
    byId("tip").replaceChildren(...lines.map((line) => element("div", {}, line)));
    byId("tip").hidden = false;
    tip.follow(event);
  },
  follow(event) {
    const box = byId("stage").getBoundingClientRect();
    const own = byId("tip").getBoundingClientRect();
    const x = Math.min(event.clientX - box.left + 14, box.width - own.width - 8);
    byId("tip").style.transform = `translate(${Math.max(4, x)}px, ${event.clientY - box.top + 16}px)`;
  },
  hide() {
    byId("tip").hidden = true;
  },
};
