// The same request over HTTP/2 with prior knowledge, and its answer in the same form.

import { connect } from "node:http2";
import type { Http2Request } from "./description.ts";
import type { Answer } from "./raw-client.ts";

const ANSWER_MS = 4_000;

export async function converse2(port: number, { method, target, host, headers, body }: Http2Request): Promise<Answer> {
  const session = connect(`http://127.0.0.1:${port}`);
  session.on("error", () => {});
  const done = Promise.withResolvers<Answer>();
  let status = 0;
  let fields: (readonly [string, string])[] = [];
  let text = "";
  const finish = (): void => done.resolve({ status, headers: fields, body: text });
  const stream = session.request({ ":method": method, ":path": target, ":authority": host, ...headers }, { endStream: body === null });
  stream.on("response", (got) => {
    status = Number(got[":status"]);
    fields = Object.entries(got).filter(([name]) => !name.startsWith(":")).flatMap(([name, value]) => (Array.isArray(value) ? value : [value]).map((one) => [name, String(one)] as const));
  }).on("data", (chunk: Buffer) => (text += chunk.toString("latin1"))).on("end", finish).on("close", finish).on("error", finish);
  if (body !== null) stream.end(body);
  const timer = setTimeout(finish, ANSWER_MS);
  const answer = await done.promise;
  clearTimeout(timer);
  session.destroy();
  return answer;
}
