// What the page holds, and questions about it.

const data = JSON.parse(document.getElementById("data").textContent);
const { nodes, values, scenes, groups } = data;

// Names are stored as how much they share with the one before, and the number of the rest.
function names(coded) {
  const whole = [];
  for (let i = 0; i < coded.length; i += 2) whole.push((i ? whole[whole.length - 1].slice(0, coded[i]) : "") + data.rests[coded[i + 1]]);
  return whole;
}
nodes.name = names(nodes.name);
values.name = names(values.name);

const orNull = (n) => (n < 0 ? null : n);
const rows = data.rows.map(([group, mark, title, sub, side, node, value, position, facts]) => ({
  group,
  mark,
  title,
  sub: sub || (value < 0 ? "" : values.name[value]),
  side,
  node: orNull(node),
  value: orNull(value),
  facts: [...(position ? [["selected by", `#${position} of all, or ${title}`]] : []), ...data.row_facts[facts]],
}));

// The edges of a picture; points are stored as steps.
function linesOf(scene) {
  return scene.lines.map(([from, to, first, ...points], at) => {
    for (let i = 2; i < points.length; i++) points[i] += points[i - 2];
    const [others, more, mark] = scene.more[at] || [[], 0, 0];
    return { from, to, named: [first + scene.base, ...others], more, mark: marks[mark], points, at };
  });
}

// By number, as the page's data has them. The signs say without colour what the colours say.
const marks = [
  { name: "", many: "", sign: "", style: "none" },
  { name: "added", many: "added", sign: "+", style: "added" },
  { name: "removed", many: "removed", sign: "−", style: "removed" },
  { name: "changed", many: "changed", sign: "~", style: "changed" },
  { name: "activation", many: "activations", sign: "◆", style: "tap" },
  { name: "part of an activation", many: "parts of activations", sign: "◇", style: "part" },
  { name: "loss", many: "losses", sign: "★", style: "loss" },
];

const kinds = { node: 0, scene: 1, quiet: 2, input: 3, output: 4, ghost: 5, earlier: 6, later: 7 };
const origins = ["", "graph input", "initializer", "constant"];

const number = (n) => n.toLocaleString("en-US");
const plural = (n, one) => `${number(n)} ${one}${n === 1 ? "" : "s"}`;

const opOf = (node) => data.ops[nodes.op[node]][0];
const domainOf = (node) => data.ops[nodes.op[node]][1];
const familyOf = (node) => data.ops[nodes.op[node]][2];
const shapeOf = (value) => data.shapes[values.shape[value]];
const originOf = (value) => values.kind[value] >> 1;
const isOutput = (value) => (values.kind[value] & 1) === 1;
const isWeight = (value) => originOf(value) > 1;
const markOfValue = (value) => values.mark[value] || 0;

// What an initializer is for; the node that decided it is stored apart, and is the first reader where none is stored.
function roleOf(value) {
  if (values.role[value] < 0) return "";
  const role = data.roles[values.role[value]];
  if (!role.includes("\u0001")) return role;
  const node = values.reader[value] ?? readersOf(value)[0];
  return role.replace("\u0001", () => (node === undefined ? "a node" : `${titleOf(node)} (${opOf(node)})`));
}

// A node may stand for many that are not told apart here.
const standsFor = (node) => nodes.stands_for[node] || 0;

// How a node is called: by its name, else by its position.
function titleOf(node) {
  if (standsFor(node)) return nodes.name[node].split(": ")[0] || `${plural(standsFor(node), "node")}, unchanged`;
  return nodes.name[node] || `${opOf(node)} ${number(node + 1)}`;
}

// float[N, 4, 16] as N×4×16, which fits beside an edge.
function dimsOf(value) {
  const shape = shapeOf(value);
  const at = shape.indexOf("[");
  if (at < 0 || shape.endsWith("[rank unknown]")) return "";
  const dims = shape.slice(at + 1, -1);
  return dims === "" ? "scalar" : dims.replaceAll(", ", "×");
}

const lastWord = (name) => name.slice(Math.max(...["/", ".", ":"].map((c) => name.lastIndexOf(c))) + 1) || name;

// By value the node that makes it, −1 for others.
const makers = new Int32Array(values.name.length).fill(-1);
nodes.outputs.forEach((made, node) => made.forEach((value) => value >= 0 && (makers[value] = node)));

// By value the nodes that read it, made when first asked for.
let readers = null;
function readersOf(value) {
  if (!readers) {
    readers = new Map();
    const note = (node) => (v) => {
      if (v < 0) return;
      const so_far = readers.get(v);
      if (!so_far) readers.set(v, [node]);
      else if (so_far[so_far.length - 1] !== node) so_far.push(node);
    };
    nodes.inputs.forEach((read, node) => read.forEach(note(node)));
    Object.entries(nodes.captured).forEach(([node, read]) => read.forEach(note(Number(node))));
    Object.entries(nodes.former).forEach(([node, read]) => read.forEach(([, value]) => note(Number(node))(value)));
  }
  return readers.get(value) || [];
}

// The picture that shows a node, or what reads it where it is not drawn itself.
function sceneOfNode(node) {
  if (nodes.scene[node] >= 0) return nodes.scene[node];
  for (const value of nodes.outputs[node]) {
    for (const reader of value < 0 ? [] : readersOf(value)) {
      if (nodes.scene[reader] >= 0) return nodes.scene[reader];
    }
  }
  return -1;
}
