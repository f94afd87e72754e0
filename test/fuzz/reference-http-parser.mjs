// Node's own HTTP/1 parser (llhttp) as a second opinion, in its own process: reads one JSON line of messages, answers one line of what it
// understood of each. Started by reference-http.ts; ends with its input.

import { createInterface } from "node:readline";
import { HTTPParser, methods } from "node:_http_common";

const MAX_HEADER_BYTES = 1 << 20;

function parse(kind, input, isHead) {
  const parser = new HTTPParser();
  parser.initialize(kind === "request" ? HTTPParser.REQUEST : HTTPParser.RESPONSE, {}, MAX_HEADER_BYTES, 0);
  const messages = [];
  let fields = [];
  let url = "";
  let current = null;
  let stop = false;
  parser[HTTPParser.kOnHeaders | 0] = (more, moreUrl) => {
    fields.push(...more);
    // Trailers come this way too, with the target of a request that is over.
    if (current === null || current.done) url += moreUrl;
  };
  parser[HTTPParser.kOnHeadersComplete | 0] = (major, minor, all, method, path, status, _reason, upgrade, keepAlive) => {
    if (all !== undefined) fields.push(...all);
    if (path !== undefined) url += path;
    current = { minor: major * 10 + minor, method: methods[method] ?? "", url, status: status ?? 0, fields, body: "", trailers: [], upgrade, keepAlive, done: false };
    messages.push(current);
    fields = [];
    url = "";
    if (upgrade) {
      stop = true;
      return 2;
    }
    return kind === "response" && isHead ? 1 : 0;
  };
  parser[HTTPParser.kOnBody | 0] = (bytes) => {
    current.body += bytes.latin1Slice();
  };
  parser[HTTPParser.kOnMessageComplete | 0] = () => {
    current.trailers = fields;
    fields = [];
    current.done = true;
  };
  const result = parser.execute(Buffer.from(input, "latin1"));
  let error = result instanceof Error ? result.code ?? result.message : null;
  if (kind === "response" && error === null && !stop) {
    const ended = parser.finish();
    if (ended instanceof Error) error = ended.code ?? ended.message;
  }
  parser.free();
  return { messages, error, stop };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { kind, inputs } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(inputs.map(({ bytes, isHead }) => parse(kind, bytes, isHead)))}\n`);
}
