// Puts the parts together.

// Shows a thing everywhere: in the picture, in the panel, in the address.
function open(target) {
  const row = target.rowId === undefined ? null : rowAt(target.rowId);
  const node = row ? row.node : target.node ?? null;
  const value = row ? row.value : target.value ?? null;
  const isListed = target.rowId !== undefined && target.rowId < rows.length;
  const full = { ...target, node, value, row: isListed ? row : rowAbout(node, value) };
  // What belongs together is one box, and its row is not about one of the nodes.
  const group = isListed && node !== null && row.group === 0 && data.command === "diff" ? picture.groupOf(node) : 0;
  panel.show(group ? { ...full, node: null, value: null, group } : full, link.of(full));
  if (!(group && picture.findGroup(group)) && !(node !== null && showNode(node)) && value !== null) showValue(value);
  link.note(full);
}

const isBoxOf = (node) => ([kind, id]) => (kind === kinds.node || kind === kinds.quiet) && id === node;
const showNode = (node) => picture.find(sceneOfNode(node), isBoxOf(nodes.scene[node] >= 0 ? node : firstDrawnReader(node)));

// What the list says about a node or a value beside its own row.
function rowAbout(node, value) {
  const wanted = (r) => (node !== null ? r.node === node : r.node === null && r.value === value);
  return rows.find(wanted) || null;
}

// A node that is not drawn is shown at what reads it.
function firstDrawnReader(node) {
  const read = nodes.outputs[node].flatMap((v) => (v < 0 ? [] : readersOf(v)));
  return read.find((reader) => nodes.scene[reader] >= 0);
}

// A value is shown at its own box, at its maker, or at its first reader.
function showValue(value) {
  const isOwn = ([kind, id]) => (kind === kinds.input || kind === kinds.output) && id === value;
  const around = [makers[value], ...readersOf(value)].filter((n) => n >= 0 && nodes.scene[n] >= 0);
  return around.some((node) => picture.find(nodes.scene[node], isOwn)) || around.some((node) => picture.find(nodes.scene[node], isBoxOf(node)));
}

function follow() {
  const asked = link.asked();
  if (!asked) return;
  if ("picture" in asked) picture.open(asked.picture);
  else open(asked);
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = document.activeElement === byId("search");
  const done = () => event.preventDefault();
  if (event.key === "Escape") {
    if (isTyping && byId("search").value) {
      byId("search").value = "";
      byId("search").dispatchEvent(new Event("input"));
    } else if (!panel.hide() && isTyping) byId("list").focus();
    return done();
  }
  if (isTyping) {
    if (["ArrowDown", "ArrowUp", "PageDown", "PageUp", "Enter"].includes(event.key) && list.key(event)) done();
    return;
  }
  const isInPicture = byId("stage").contains(document.activeElement);
  const isOnButton = document.activeElement.matches("button, a, summary");
  const zooms = { "+": () => view.zoomBy(1.3), "=": () => view.zoomBy(1.3), "-": () => view.zoomBy(1 / 1.3), "−": () => view.zoomBy(1 / 1.3), 0: () => view.fit(true) };
  if (event.key === "/") {
    byId("search").focus();
    byId("search").select();
    done();
  } else if (event.key in zooms) {
    zooms[event.key]();
    done();
  } else if (isInPicture && !isOnButton) {
    if (picture.key(event)) done();
  } else if (event.key === "j" || event.key === "k" || document.activeElement === byId("list")) {
    if (list.key(event)) done();
  }
}

theme.start();
overview();
panel.start({ node: (node) => open({ node }), picture: (index) => picture.open(index) });
picture.start({
  node: (node) => open({ node }),
  value: (value) => open({ value }),
  row: (rowId) => open({ rowId }),
});
list.start((rowId) => open({ rowId }));
document.addEventListener("keydown", keys);
window.addEventListener("hashchange", () => link.isNoted() || follow());
follow();
document.documentElement.setAttribute("data-ready", "");
