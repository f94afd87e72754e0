// One HTTP request to a port of a pod that listens on loopback there alone, by way of the API server: what `kubectl port-forward` does, over
// a WebSocket. The pod's administration port needs no other way in.

import { err, ok, type Result } from "../../core/result.ts";
import type { KubernetesAccess } from "./access.ts";

export interface PodPort {
  readonly namespace: string;
  readonly pod: string;
  readonly port: number;
}

const PROTOCOL = "v4.channel.k8s.io";
const REQUEST_MS = 10_000;
/** A dump of a large mesh is tens of megabytes; beyond this it is no such thing. */
const ANSWER_BYTES_MAX = 256 * 1024 * 1024;
const [DATA, ERROR] = [0, 1];
/** Each channel begins by saying its port. */
const PORT_BYTES = 2;

/** @returns the body of a 200; else what went wrong. */
export async function getFromPod(access: KubernetesAccess, { namespace, pod, port }: PodPort, path: string): Promise<Result<string, string>> {
  const authorization = await access.authorization();
  const url = `${access.server.replace(/^http/, "ws")}/api/v1/namespaces/${namespace}/pods/${pod}/portforward?ports=${port}`;
  const socket = new WebSocket(url, { protocols: [PROTOCOL], tls: access.tls, headers: authorization === null ? {} : { Authorization: authorization } } as unknown as string[]);
  socket.binaryType = "arraybuffer";
  const done = Promise.withResolvers<Result<string, string>>();
  const timer = setTimeout(() => done.resolve(err(`no answer from port ${port} of ${namespace}/${pod} in ${REQUEST_MS / 1000} s`)), REQUEST_MS);
  const chunks: Uint8Array[] = [];
  const begun = [false, false];
  let bytes = 0;
  socket.onopen = () => {
    const request = new TextEncoder().encode(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
    const framed = new Uint8Array(1 + request.length);
    framed[0] = DATA!;
    framed.set(request, 1);
    socket.send(framed);
  };
  socket.onmessage = ({ data }) => {
    const message = new Uint8Array(data as unknown as ArrayBuffer);
    const channel = message[0] ?? -1;
    if (channel !== DATA && channel !== ERROR) return;
    const body = message.subarray(begun[channel] === true ? 1 : 1 + PORT_BYTES);
    begun[channel] = true;
    if (body.length === 0) return;
    if (channel === ERROR) return done.resolve(err(`port ${port} of ${namespace}/${pod}: ${new TextDecoder().decode(body).trim()}`));
    bytes += body.length;
    if (bytes > ANSWER_BYTES_MAX) return done.resolve(err(`port ${port} of ${namespace}/${pod} answers with more than ${ANSWER_BYTES_MAX} bytes`));
    chunks.push(body.slice());
    const answer = whole(Buffer.concat(chunks));
    if (answer !== null) done.resolve(answer);
  };
  socket.onerror = () => done.resolve(err(`no way to port ${port} of ${namespace}/${pod} through ${access.server}: may you create pods/portforward?`));
  socket.onclose = () => done.resolve(whole(Buffer.concat(chunks), true) ?? err(`port ${port} of ${namespace}/${pod} closed before it had answered`));
  const outcome = await done.promise;
  clearTimeout(timer);
  socket.close();
  return outcome;
}

/** The answer once it is complete: by its length, by its last chunk, or because nothing more comes. Null before that. */
function whole(text: Buffer, ended = false): Result<string, string> | null {
  const headEnd = text.indexOf("\r\n\r\n");
  if (headEnd < 0) return null;
  const head = text.subarray(0, headEnd).toString("latin1");
  const body = text.subarray(headEnd + 4);
  const status = /^HTTP\/1\.1 (\d{3})/.exec(head)?.[1];
  const length = /^content-length: *(\d+)$/im.exec(head)?.[1];
  const chunked = /^transfer-encoding: *chunked$/im.test(head);
  const content = chunked ? dechunk(body) : length !== undefined ? (body.length >= Number(length) ? body.subarray(0, Number(length)) : null) : ended ? body : null;
  if (content === null) return null;
  return status === "200" ? ok(content.toString("utf8")) : err(`status ${status}: ${content.toString("utf8").trim()}`);
}

function dechunk(body: Buffer): Buffer | null {
  const parts: Buffer[] = [];
  for (let at = 0; ; ) {
    const lineEnd = body.indexOf("\r\n", at);
    if (lineEnd < 0) return null;
    const size = Number.parseInt(body.subarray(at, lineEnd).toString("latin1"), 16);
    if (size === 0) return Buffer.concat(parts);
    if (!(size > 0) || body.length < lineEnd + 2 + size + 2) return null;
    parts.push(body.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = lineEnd + 2 + size + 2;
  }
}
