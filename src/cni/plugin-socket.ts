// Where the plugin finds the agent: a SEQPACKET socket that root alone can reach. One request a connection, its namespace beside it.

import { chmodSync, mkdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { err, ok, type Result } from "../core/result.ts";
import { closeAll, peerCredentials, receiveWithDescriptors, sendWithDescriptors } from "../net/fd-passing.ts";
import { close, EAGAIN, EINTR, errnoName, F_DUPFD_CLOEXEC, fcntl, SOCK_SEQPACKET } from "../net/libc.ts";
import { listenUnix } from "../net/unix-socket.ts";
import { type AgentAnswer, type AgentRequest, decodeRequest, encodeAnswer, PACKET_BYTES_MAX } from "./agent-protocol.ts";

/** Pods that start at once on a node; more wait in the plugin. */
const BACKLOG = 256;
/** The plugin sends at once. */
const REQUEST_MS = 5_000;
const REQUEST_POLL_MS = 2;

/** `namespaceFd` comes with add and check, else null; it is closed after the answer: who keeps it, copies it. */
export type RequestHandler = (request: AgentRequest, namespaceFd: number | null) => Promise<AgentAnswer>;

/** What the runtime's sockets have besides their types. `close` leaves copies of the descriptor alone, where `end` would say goodbye. */
interface RawSocket {
  readonly fd: number;
  pause(): void;
  close(): void;
}

export interface PluginSocket {
  close(): void;
}

export function listenForPlugins(path: string, handle: RequestHandler, onTrouble: (why: string) => void): Result<PluginSocket, string> {
  mkdirSync(dirname(path), { recursive: true });
  rmSync(path, { force: true });
  const made = listenUnix(path, SOCK_SEQPACKET, BACKLOG);
  if ("error" in made) return err(`cannot listen for the plugin: ${made.error}`);
  chmodSync(path, 0o600);
  const listener = Bun.listen({
    fd: made.fd,
    socket: {
      // Descriptors would be lost to the runtime's own reading: the socket is taken away from it before anything is read.
      open: (socket: RawSocket) => {
        socket.pause();
        const fd = fcntl(socket.fd, F_DUPFD_CLOEXEC, 0);
        socket.close();
        if (fd < 0) return onTrouble(`a plugin's connection could not be kept: ${errnoName(fd)}`);
        void serve(fd, handle).then((why) => {
          close(fd);
          if (why !== null) onTrouble(why);
        });
      },
      data: () => {},
    },
  } as never);
  return ok({
    close() {
      listener.stop(true);
      rmSync(path, { force: true });
    },
  });
}

/** @returns what went wrong between us; null when the plugin has its answer. */
async function serve(fd: number, handle: RequestHandler): Promise<string | null> {
  const peer = peerCredentials(fd);
  if ("error" in peer) return `who connected is not known: ${peer.error}`;
  if (peer.uid !== 0 && peer.uid !== process.geteuid!()) return `a process of user ${peer.uid} connected to the plugin's socket; only root may`;
  const packet = await receive(fd);
  if (!packet.ok) return packet.error;
  const { bytes, fds } = packet.value;
  try {
    const request = decodeRequest(bytes);
    const answer = request.ok ? await answered(request.value, fds, handle) : refusal(`the plugin's request is not understood: ${request.error}`);
    const sent = sendWithDescriptors(fd, encodeAnswer(answer), []);
    return sent < 0 ? `the plugin did not wait for its answer: ${errnoName(sent)}` : null;
  } finally {
    closeAll(fds);
  }
}

async function answered(request: AgentRequest, fds: readonly number[], handle: RequestHandler): Promise<AgentAnswer> {
  const wanted = request.kind === "add" || request.kind === "check" ? 1 : 0;
  if (fds.length !== wanted) return refusal(`${fds.length} descriptors with ${request.kind}, wanted ${wanted}`);
  try {
    return await handle(request, fds[0] ?? null);
  } catch (cause) {
    return { kind: "refused", why: `the agent failed: ${cause instanceof Error ? cause.message : String(cause)}`, later: true };
  }
}

const refusal = (why: string): AgentAnswer => ({ kind: "refused", why, later: false });

async function receive(fd: number): Promise<Result<{ readonly bytes: Uint8Array; readonly fds: readonly number[] }, string>> {
  const into = new Uint8Array(PACKET_BYTES_MAX);
  const deadline = performance.now() + REQUEST_MS;
  for (;;) {
    const receipt = receiveWithDescriptors(fd, into, 1);
    if (receipt.kind === "truncated") return err(`a plugin sent ${receipt.message}`);
    const { length, fds } = receipt.received;
    if (length > 0) return ok({ bytes: into.subarray(0, length), fds });
    if (length === 0) return err("a plugin connected and said nothing");
    if (length !== -EAGAIN && length !== -EINTR) return err(`a plugin's request cannot be read: ${errnoName(length)}`);
    if (performance.now() >= deadline) return err(`a plugin has said nothing in ${REQUEST_MS / 1000} s`);
    await Bun.sleep(REQUEST_POLL_MS);
  }
}
