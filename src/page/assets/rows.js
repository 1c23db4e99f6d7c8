// The rows of the list: those of the data, then one for every node, then one for every initializer.

const initializers = [];
if (groups.some((g) => g.source === "initializers")) {
  values.kind.forEach((kind, value) => kind >> 1 === 2 && initializers.push(value));
}
const rowCount = rows.length + nodes.op.length + initializers.length;
const groupFrom = (source) => groups.findIndex((g) => g.source === source);

function rowAt(id) {
  if (id < rows.length) return rows[id];
  if (id < rows.length + nodes.op.length) {
    const node = id - rows.length;
    const made = nodes.outputs[node].find((v) => v >= 0);
    return {
      group: groupFrom("nodes"),
      mark: nodes.mark[node],
      title: opOf(node),
      sub: nodes.name[node] || (made === undefined ? "" : `makes ${values.name[made]}`),
      side: made === undefined ? "" : dimsOf(made),
      node,
      value: null,
      facts: [],
    };
  }
  const value = initializers[id - rows.length - nodes.op.length];
  return {
    group: groupFrom("initializers"),
    mark: markOfValue(value),
    title: values.name[value],
    sub: roleOf(value),
    side: shapeOf(value),
    node: null,
    value,
    facts: [],
  };
}

// What a search looks at, made when first needed.
const searchable = [];
function textOf(id) {
  if (searchable[id] === undefined) {
    const row = rowAt(id);
    const op = row.node === null ? "" : `${opOf(row.node)} ${nodes.name[row.node]}`;
    searchable[id] = `${row.title} ${row.sub} ${row.side} ${op}`.toLowerCase();
  }
  return searchable[id];
}

// The rows of a group (all of them for −1) in which every word is found.
function matching(group, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  const note = (id) => {
    if (words.every((word) => textOf(id).includes(word))) found.push(id);
  };
  const { source } = groups[group] || {};
  const [first, last] = {
    nodes: [rows.length, rows.length + nodes.op.length],
    initializers: [rows.length + nodes.op.length, rowCount],
    rows: [0, rows.length],
  }[source] || [0, rowCount];
  const lists = (id) => group < 0 || source !== "rows" || rows[id].group === group;
  // What no group lists is not found either.
  const has = (id) => id < rows.length || groupFrom(id < rows.length + nodes.op.length ? "nodes" : "initializers") >= 0;
  for (let id = first; id < last; id++) {
    if (lists(id) && has(id)) note(id);
  }
  return found;
}
