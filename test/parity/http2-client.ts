// The same request over HTTP/2 with prior knowledge, and its answer in the same form.

import { connect, type IncomingHttpHeaders } from "node:http2";
import type { Http2Request } from "./description.ts";
import type { Answer } from "./raw-client.ts";

const ANSWER_MS = 4_000;

/** @param talk said once the answer is 200; as many bytes are read. */
export async function converse2(port: number, { method, target, host, headers, body, trailers, protocol }: Http2Request, talk?: string): Promise<Answer> {
  const session = connect(`http://127.0.0.1:${port}`);
  session.on("error", () => {});
  // An extended CONNECT is for servers that have said that they take one.
  if (protocol !== undefined) await new Promise((resolve) => session.once("remoteSettings", resolve));
  const done = Promise.withResolvers<Answer>();
  let status = 0;
  let fields: Answer["headers"] = [];
  let after: Answer["trailers"] = [];
  const interim: number[] = [];
  let text = "";
  const finish = (): void => done.resolve({ status, headers: fields, body: text, interim, trailers: after });
  const open = body !== null || protocol !== undefined;
  const stream = session.request({ ":method": method, ":path": target, ":authority": host, ...(protocol === undefined ? {} : { ":protocol": protocol, ":scheme": "http" }), ...headers }, { endStream: !open, ...(trailers === undefined ? {} : { waitForTrailers: true }) });
  stream.on("headers", (got) => void interim.push(Number(got[":status"]))).on("trailers", (got) => void (after = fieldsOf(got))).on("response", (got) => {
    status = Number(got[":status"]);
    fields = fieldsOf(got);
    if (protocol !== undefined && status === 200) stream.write(Buffer.from(talk ?? "", "latin1"));
  }).on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1");
    if (talk !== undefined && text.length >= talk.length) finish();
  }).on("end", finish).on("close", finish).on("error", finish);
  if (trailers !== undefined) stream.on("wantTrailers", () => stream.sendTrailers(trailers));
  if (body !== null) stream.end(Buffer.from(body, "latin1"));
  const timer = setTimeout(finish, ANSWER_MS);
  const answer = await done.promise;
  clearTimeout(timer);
  session.destroy();
  return answer;
}

function fieldsOf(headers: IncomingHttpHeaders): Answer["headers"] {
  return Object.entries(headers).filter(([name]) => !name.startsWith(":")).flatMap(([name, value]) => (Array.isArray(value) ? value : [value]).map((one) => [name, String(one)] as const));
}
