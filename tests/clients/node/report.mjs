// The driver's end of ../driver.py: what to ask comes on stdin, what each case gave or raised goes to stdout.

import { text } from "node:stream/consumers";

export const ask = JSON.parse(await text(process.stdin));

export async function report(cases) {
  const seen = {};
  for (const [name, run] of Object.entries(cases)) {
    try {
      seen[name] = { value: (await run()) ?? null };
    } catch (error) {
      const { status, statusCode, code, message, requestID, error: body } = error;
      const raised = { kind: error.constructor.name, status: status ?? statusCode, code, message, requestID, body };
      seen[name] = { raised: JSON.parse(JSON.stringify(raised)) };
    }
  }
  process.stdout.write(JSON.stringify(seen));
}
