// The OpenAI SDK for JavaScript; which of its clients, `way` says.

import OpenAI, { AzureOpenAI } from "openai";
import { ask, report } from "./report.mjs";

const connect = (apiKey = ask.key) =>
  ask.way === "azure"
    ? new AzureOpenAI({ endpoint: ask.endpoint, apiKey, apiVersion: "2024-10-21" })
    : new OpenAI({ baseURL: ask.endpoint + ask.way, apiKey });
const client = connect();

const chat = (body, by = client) => by.chat.completions.create({ model: ask.chat, ...body });
async function collect(stream) {
  const chunks = [];
  for await (const chunk of await stream) chunks.push(chunk);
  return chunks;
}

const france = { messages: ask.messages, temperature: 0, max_tokens: 40 };
const tool = { messages: [{ role: "user", content: ask.weather }], tools: [ask.tool], temperature: 0, max_tokens: 120 };
const named = { type: "function", function: { name: "get_weather" } };
const city = { messages: [{ role: "user", content: ask.describe }], temperature: 0, max_tokens: 120 };
const fruit = { messages: [{ role: "user", content: ask.fruit }], temperature: 0, max_tokens: 60 };
const schema = { name: "city", schema: ask.schema, strict: true };
const said = { model: ask.chat, prompt: "One, two, three,", max_tokens: 6, temperature: 0 };

await report({
  chat: async () => {
    const answer = await chat(france);
    return { ...answer, requestId: answer._request_id };
  },
  stream: () => collect(chat({ ...france, stream: true, stream_options: { include_usage: true } })),
  "stream without usage": () => collect(chat({ ...france, stream: true })),
  tools: () => chat({ ...tool, tool_choice: named }),
  "streamed tools": () =>
    client.chat.completions.stream({ model: ask.chat, ...tool, tool_choice: "required" }).finalChatCompletion(),
  "json object": () => chat({ ...fruit, response_format: { type: "json_object" } }),
  "json schema": async () => {
    const format = { type: "json_schema", json_schema: schema };
    const answer = await client.chat.completions.parse({ model: ask.chat, ...city, response_format: format });
    return answer.choices[0].message;
  },
  completions: () => client.completions.create(said),
  "completions stream": () => collect(client.completions.create({ ...said, stream: true })),
  // Unasked the SDK wants base64, and decodes it; floats in its place become an empty vector without a word.
  embeddings: () => client.embeddings.create({ model: ask.embed, input: ["hello", "world"] }),
  floats: () => client.embeddings.create({ model: ask.embed, input: ["hello", "world"], encoding_format: "float" }),
  models: async () => (await collect(client.models.list())).map((model) => model.id),
  "wrong key": () => chat(france, connect("wrong")),
  "unknown model": () => chat({ ...france, model: "gpt-nope" }),
  "no such length": () => client.embeddings.create({ model: ask.embed, input: "hello", dimensions: 5 }),
  blocked: () => chat({ messages: [{ role: "user", content: ask.blocked }] }),
  "blocked stream": () => chat({ messages: [{ role: "user", content: ask.blocked }], stream: true }),
});
