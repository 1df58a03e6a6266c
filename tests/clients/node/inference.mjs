// @azure-rest/ai-inference, with @azure/core-sse for streams as Microsoft's samples use it.

import { readFile } from "node:fs/promises";
import createClient, { isUnexpected } from "@azure-rest/ai-inference";
import { AzureKeyCredential } from "@azure/core-auth";
import { createSseStream } from "@azure/core-sse";
import { ask, report } from "./report.mjs";

const connect = (key = ask.key, path = "") =>
  createClient(ask.endpoint + path, new AzureKeyCredential(key), { allowInsecureConnection: true });
const client = connect();

// What the samples look at: the status, whether the SDK expected it, and the body.
const seen = (response) => ({
  status: response.status,
  unexpected: isUnexpected(response),
  headers: { ...response.headers },
  body: response.body,
});
const chat = async (body, options = {}, by = client) =>
  seen(await by.path("/chat/completions").post({ body, ...options }));

async function stream(body) {
  const response = await client
    .path("/chat/completions")
    .post({ body: { ...body, stream: true } })
    .asNodeStream();
  if (response.status !== "200") throw new Error(`status ${response.status}`);
  const events = [];
  for await (const event of createSseStream(response.body)) events.push(event.data);
  return events;
}

const france = { messages: ask.messages, temperature: 0, max_tokens: 40 };
const tool = { messages: [{ role: "user", content: ask.weather }], tools: [ask.tool], temperature: 0, max_tokens: 120 };
const named = { type: "function", function: { name: "get_weather" } };
const city = { messages: [{ role: "user", content: ask.describe }], temperature: 0, max_tokens: 120 };
const fruit = { messages: [{ role: "user", content: ask.fruit }], temperature: 0, max_tokens: 60 };
const schema = { name: "city", schema: ask.schema, strict: true };
const extra = (header) =>
  chat({ ...france, max_tokens: 2, n: 1 }, header ? { headers: { "extra-parameters": header } } : {});

await report({
  "http without leave": async () =>
    createClient(ask.endpoint, new AzureKeyCredential(ask.key)).path("/info").get(),
  chat: () => chat({ ...france, stream: false }),
  "under /models": () => chat(france, {}, connect(ask.key, "/models")),
  stream: () => stream(france),
  tools: () => chat({ ...tool, tool_choice: named }),
  "streamed tools": () => stream({ ...tool, tool_choice: "required" }),
  "json object": () => chat({ ...fruit, response_format: { type: "json_object" } }),
  "json schema": () => chat({ ...city, response_format: { type: "json_schema", json_schema: schema } }),
  embeddings: async () => seen(await client.path("/embeddings").post({ body: { input: ["hello", "world"] } })),
  base64: async () =>
    seen(await client.path("/embeddings").post({ body: { input: ["hello"], encoding_format: "base64" } })),
  images: async () => {
    const image = `data:image/jpeg;base64,${(await readFile(ask.cat)).toString("base64")}`;
    return seen(await client.path("/images/embeddings").post({ body: { input: [{ image }] } }));
  },
  info: async () => seen(await client.path("/info").get()),
  "extra without header": () => extra(),
  "extra error": () => extra("error"),
  "extra drop": () => extra("drop"),
  "extra pass-through": () => extra("pass-through"),
  "extra allow": () => extra("allow"),
  "wrong key": () => chat(france, {}, connect("wrong")),
  "unknown model": () => chat({ ...france, model: "gpt-nope" }),
  "no image reader": () =>
    chat({
      messages: [
        { role: "user", content: [{ type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=" } }] },
      ],
    }),
  blocked: () => chat({ messages: [{ role: "user", content: ask.blocked }] }),
  "blocked stream": () => chat({ messages: [{ role: "user", content: ask.blocked }], stream: true }),
});
