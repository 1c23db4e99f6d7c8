// Links to what is shown: #node=NAME (or #node=@POSITION), #value=NAME, #row=NUMBER, #picture=NUMBER.

const link = (() => {
  // By name the node, where only one has it; made when first needed.
  let named = null;
  let valueNamed = null;
  let noted = "";

  function uniqueNodes() {
    if (!named) {
      named = new Map();
      nodes.name.forEach((name, node) => named.set(name, named.has(name) ? -1 : node));
    }
    return named;
  }

  function ofNode(node) {
    const name = nodes.name[node];
    const isUnique = name && !name.startsWith("@") && uniqueNodes().get(name) === node;
    return `#node=${isUnique ? encodeURIComponent(name) : `@${node}`}`;
  }

  function nodeOf(text) {
    if (/^@\d+$/.test(text)) return Number(text.slice(1)) < nodes.op.length ? Number(text.slice(1)) : -1;
    const node = uniqueNodes().get(text);
    return node === undefined ? -1 : node;
  }

  function valueOf(text) {
    valueNamed = valueNamed || new Map(values.name.map((name, value) => [name, value]));
    const value = valueNamed.get(text);
    return value === undefined ? -1 : value;
  }

  const of = (target) => {
    if (target.rowId !== undefined && target.rowId < rows.length) return `#row=${target.rowId}`;
    if (target.node !== null && target.node !== undefined) return ofNode(target.node);
    return `#value=${encodeURIComponent(values.name[target.value])}`;
  };

  function note(target) {
    noted = "picture" in target ? `#picture=${target.picture}` : of(target);
    if (location.hash !== noted) location.hash = noted;
  }

  // What the address asks for; null for nothing that is here.
  function asked() {
    const [, key, text] = /^#(\w+)=(.*)$/.exec(location.hash) || [];
    let value = "";
    try {
      value = decodeURIComponent(text || "");
    } catch {
      return null;
    }
    if (key === "node" && nodeOf(value) >= 0) return { node: nodeOf(value) };
    if (key === "value" && valueOf(value) >= 0) return { value: valueOf(value) };
    if (key === "row" && rows[Number(value)]) return { rowId: Number(value) };
    if (key === "picture" && scenes[Number(value)]) return { picture: Number(value) };
    return null;
  }

  return { note, of, asked, isNoted: () => location.hash === noted };
})();
