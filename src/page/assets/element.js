// Elements, made without ever interpreting text as markup.

const svgSpace = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children) {
    if (child !== null && child !== undefined) made.append(child);
  }
  return made;
}

const element = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
const drawn = (name, attributes, ...children) => fill(document.createElementNS(svgSpace, name), attributes, children);

// A button that does one thing.
function button(attributes, text, action) {
  const made = element("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", action);
  return made;
}

// Text cut to a width, measured with the font that it will have. `keepEnd` keeps the end, which tells names of one block apart.
const ruler = document.createElement("canvas").getContext("2d");
function shortened(text, width, font, keepEnd) {
  ruler.font = font;
  // Longer ones do not fit whatever their letters are; names may be very long.
  const most = 120;
  let whole = Array.from(text.length > 4 * most ? (keepEnd ? text.slice(-2 * most) : text.slice(0, 2 * most)) : text);
  if (whole.length === Array.from(text).length && ruler.measureText(text).width <= width) return text;
  const part = (n) => (keepEnd ? "…" + whole.slice(whole.length - n).join("") : whole.slice(0, n).join("") + "…");
  let [low, high] = [0, Math.min(whole.length, most)];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (ruler.measureText(part(middle)).width <= width) low = middle;
    else high = middle - 1;
  }
  return part(low);
}
