const by = (id) => document.getElementById(id);
const form = by("ask"), prompts = by("prompt"), text = by("text"), answer = by("answer");
const button = form.querySelector("button");

const chosen = () => prompts.selectedOptions[0].dataset;
const example = () => chosen().example;
let shown = "";
const showExample = () => {
  if (text.value === shown) text.value = example();  // what a person typed stays
  shown = example();
};
prompts.addEventListener("change", showExample);
showExample();

const line = (kind, words) => {
  const element = document.createElement(kind);
  element.textContent = words;
  return element;
};

const ask = async () => {
  const record = { [form.dataset.field]: prompts.value, [chosen().raw]: text.value };
  const response = await fetch("predict", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(record),
  });
  const found = await response.json();
  if (!response.ok) return [line("p", found.error)];
  const tokens = found.tokens.map((one) => `${one.token} ${one.probability.toFixed(3)}`).join("  ");
  const lines = [line("strong", found.answer || "(nothing)"), line("p", `probability ${Math.exp(found.score).toFixed(3)}: ${tokens}`)];
  if (found.cut) lines.push(line("p", `${found.cut} tokens of the text were too many, and cut`));
  return lines;
};

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  try {
    answer.replaceChildren(...(await ask()));
  } catch (error) {
    answer.replaceChildren(line("p", `no answer (${error.message}); is the service still there?`));
  }
  button.disabled = false;
});
