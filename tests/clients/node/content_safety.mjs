// @azure-rest/ai-content-safety: text, image and a blocklist's life.

import { readFile } from "node:fs/promises";
import createClient, { isUnexpected } from "@azure-rest/ai-content-safety";
import { AzureKeyCredential } from "@azure/core-auth";
import { ask, report } from "./report.mjs";

const connect = (key = ask.key) =>
  createClient(ask.endpoint, new AzureKeyCredential(key), { allowInsecureConnection: true });
const client = connect();
const name = ask.blocklist;
const one = "/text/blocklists/{blocklistName}";

const seen = (response) => ({ status: response.status, unexpected: isUnexpected(response), body: response.body });
const analyze = async (body, by = client) => seen(await by.path("/text:analyze").post({ body }));
const list = () => client.path(one, name);
const put = async (description) =>
  seen(await list().patch({ contentType: "application/merge-patch+json", body: { description } }));
const items = async () => seen(await client.path(`${one}/blocklistItems`, name).get());

await report({
  text: () => analyze({ text: ask.blocked }),
  image: async () => {
    const content = (await readFile(ask.cat)).toString("base64");
    return seen(await client.path("/image:analyze").post({ body: { image: { content } } }));
  },
  "wrong key": () => analyze({ text: "hello" }, connect("wrong")),
  create: () => put("first"),
  update: () => put("second"),
  get: async () => seen(await list().get()),
  list: async () => seen(await client.path("/text/blocklists").get()),
  add: async () =>
    seen(
      await client
        .path(`${one}:addOrUpdateBlocklistItems`, name)
        .post({ body: { blocklistItems: [{ text: "wolpertinger" }, { text: "jackalope" }] } }),
    ),
  items,
  match: () => analyze({ text: "A wolpertinger!", blocklistNames: [name] }),
  remove: async () => {
    const blocklistItemIds = [(await items()).body.value[0].blocklistItemId];
    return seen(await client.path(`${one}:removeBlocklistItems`, name).post({ body: { blocklistItemIds } }));
  },
  "items left": items,
  delete: async () => seen(await list().delete()),
  gone: async () => seen(await list().get()),
});
