// The boxes of a picture, one function for each kind.

const fonts = (() => {
  const family = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
  return { head: `600 13px ${family}`, line: `11px ${family}` };
})();
const [headHeight, lineHeight] = [26, 15];

const drawnText = (text, x, y, style, anchor) => drawn("text", { x, y, class: style, "text-anchor": anchor || null }, text);

// A frame with a coloured head.
function framed(width, height, isOnlyHead) {
  const [w, h, r] = [width / 2, height / 2, 6];
  const head = isOnlyHead
    ? drawn("rect", { class: "head", x: -w, y: -h, width, height, rx: r })
    : drawn("path", { class: "head", d: `M${-w} ${-h + headHeight}v${r - headHeight}a${r} ${r} 0 0 1 ${r} ${-r}h${width - 2 * r}a${r} ${r} 0 0 1 ${r} ${r}v${headHeight - r}z` });
  return [drawn("rect", { class: "body", x: -w, y: -h, width, height, rx: r }), head];
}

const outline = (width, height) => drawn("rect", { class: "outline", x: -width / 2, y: -height / 2, width, height, rx: 6 });

function nodeBox(node, width, height) {
  const [w, h] = [width / 2, height / 2];
  const mark = marks[nodes.mark[node]];
  const parts = framed(width, height, height <= headHeight + 1);
  const room = width - 20 - (mark.sign ? 18 : 0);
  parts.push(drawnText(shortened(opOf(node), room, fonts.head), -w + 10, -h + 17.5, "op"));
  if (mark.sign) parts.push(drawnText(mark.sign, w - 10, -h + 18, "badge", "end"));
  let y = -h + headHeight + 13;
  const line = (text, style, keepEnd, beside) => {
    if (y > h) return;
    const right = beside ? shortened(beside, (width - 26) * 0.62, fonts.line) : "";
    ruler.font = fonts.line;
    const left = width - 20 - (right ? ruler.measureText(right).width + 8 : 0);
    parts.push(drawnText(shortened(text, left, fonts.line, keepEnd), -w + 10, y, style));
    if (right) parts.push(drawnText(right, w - 10, y, "dims", "end"));
    y += lineHeight;
  };
  if (nodes.name[node]) line(nodes.name[node], "name", true);
  const weights = nodes.inputs[node].filter((v) => v >= 0 && isWeight(v));
  weights.slice(0, 4).forEach((v) => {
    const { sign, style } = marks[markOfValue(v)];
    line(`${sign} ${lastWord(values.name[v])}`.trim(), `weight mark-${style}`, true, dimsOf(v));
  });
  if (weights.length > 4) line(`and ${weights.length - 4} more`, "weight");
  parts.push(outline(width, height));
  return { parts, style: `node family-${familyOf(node)} mark-${mark.style}`, label: `${opOf(node)} ${nodes.name[node]}${mark.name ? ", " + mark.name : ""}` };
}

function sceneBox(scene, width, height) {
  const [w, h] = [width / 2, height / 2];
  const inner = scenes[scene];
  const mark = marks[inner.mark];
  const ops = inner.ops.map(([op, n]) => (n > 1 ? `${op} ×${number(n)}` : op)).join(", ");
  const counts = inner.marks.map(([m, n]) => `${marks[m].sign} ${number(n)} ${n === 1 ? marks[m].name : marks[m].many}`).join("   ");
  // What belongs together has a title of its own: what it is, and more about it behind a colon.
  const [title, ...about] = inner.title.split(": ");
  const head = inner.is_group ? `${mark.sign} ${title}` : `▸ ${plural(inner.count, "node")}`;
  const lines = inner.is_group ? [[about.join(": ") || plural(inner.count, "node"), "name"], [ops, "weight"], ["▸ opens", "name"]] : [[inner.title, "name"], [ops, "weight"], [counts, "counts"]];
  const parts = [
    drawn("rect", { class: "behind", x: -w + 5, y: -h + 5, width, height, rx: 6 }),
    ...framed(width, height),
    drawnText(shortened(head, width - 20, fonts.head), -w + 10, -h + 17.5, "op"),
    ...lines.map(([text, style], i) => drawnText(shortened(text, width - 20, fonts.line), -w + 10, -h + headHeight + 13 + i * lineHeight, style)),
    outline(width, height),
  ];
  return { parts, style: `scene mark-${mark.style}`, label: `${inner.title}: ${plural(inner.count, "node")}, opens` };
}

// Two lines in a rounded box: inputs, outputs, and what PER would add.
function pillBox(title, sub, width, height, style, label) {
  const parts = [drawn("rect", { class: "body", x: -width / 2, y: -height / 2, width, height, rx: 12 })];
  if (sub) {
    parts.push(drawnText(shortened(title, width - 22, fonts.head, true), 0, -3, "pill", "middle"));
    parts.push(drawnText(shortened(sub, width - 18, fonts.line), 0, 12, "dims", "middle"));
  } else {
    parts.push(drawnText(shortened(title, width - 18, fonts.line), 0, 4, "dims", "middle"));
  }
  parts.push(drawn("rect", { class: "outline", x: -width / 2, y: -height / 2, width, height, rx: 12 }));
  return { parts, style, label };
}

function boxOf([kind, id, , , width, height]) {
  const value = (word, sign) => {
    const mark = marks[markOfValue(id)];
    const sub = mark.style === "loss" ? "★ λ·ΣPER is added here" : shapeOf(id);
    return pillBox(`${mark.style === "loss" ? "" : mark.sign} ${values.name[id]}`.trim(), sub, width, height, `${word} mark-${mark.style}`, `${sign} ${values.name[id]}, ${shapeOf(id)}`);
  };
  switch (kind) {
    case kinds.node:
      return nodeBox(id, width, height);
    case kinds.scene:
      return sceneBox(id, width, height);
    case kinds.input:
      return value("input", "graph input");
    case kinds.output:
      return value("output", "graph output");
    case kinds.ghost:
      return pillBox("PER", rows[id].side, width, height, "ghost", `PER would be added here, ${rows[id].side}`);
    case kinds.quiet: {
      const mark = marks[nodes.mark[id]];
      const text = nodes.name[id] ? `${mark.sign} ${titleOf(id)}` : `… ${plural(standsFor(id), "node")} …`;
      return pillBox(text, "", width, height, `quiet mark-${mark.style}`, titleOf(id));
    }
    default: {
      const arrow = kind === kinds.earlier ? "↑ from" : "↓ to";
      const where = id < 0 ? "several places" : titleOf(id);
      return pillBox(`${arrow} ${where}`, "", width, height, "stub", `${arrow.slice(2)} ${where}, outside this picture`);
    }
  }
}
