// The chained plugin: started by the container runtime for each pod, for some milliseconds. It decides nothing: it passes the pod's
// network namespace to the agent of this node and waits until the agent says that the pod is in the mesh, or need not be.
//
// Without an agent no pod starts but those of the excluded namespaces: whether a pod must be in the mesh is then not known, and a pod
// that must be does not start outside it. An agent that is being replaced is waited for.

import { readFileSync, writeSync } from "node:fs";
import { err, ok, type Result, unreachable } from "../core/result.ts";
import { receiveWithDescriptors, sendWithDescriptors } from "../net/fd-passing.ts";
import { close, EAGAIN, ECONNREFUSED, EINTR, ENOENT, errnoName, O_CLOEXEC, O_RDONLY, open, pollOne, SOCK_SEQPACKET } from "../net/libc.ts";
import { connectUnix } from "../net/unix-socket.ts";
import { type AgentAnswer, type AgentRequest, decodeAnswer, encodeRequest, PACKET_BYTES_MAX, type PodReference } from "./agent-protocol.ts";
import { INPUT_BYTES_MAX, parseCall, type PluginCall, type PluginConfig, type Sandbox, VERSION_NEWEST, VERSIONS } from "./plugin-call.ts";
import { formatPluginError, type PluginError, pluginError } from "./plugin-error.ts";

/** An agent that is replaced is back after a second or two; the runtime gives a plugin minutes. */
const AGENT_WAIT_MS = 20_000;
const AGENT_LOOK_AGAIN_MS = 100;
/** The agent itself gives up after less (see enrolment.ts), and says why; this is for one that hangs. */
const ANSWER_LIMIT_MS = 60_000;
/** A pod that is leaving waits for nobody. */
const DEL_LIMIT_MS = 2_000;
const POLLIN = 1;

/** @returns the process's exit status; the result or the error has been printed. */
export function runPlugin(environment: Readonly<Record<string, string | undefined>>): number {
  const input = readInput();
  const call = input.ok ? parseCall(environment, input.value) : input;
  const outcome = call.ok ? perform(call.value) : call;
  if (outcome.ok) {
    if (outcome.value !== "") writeSync(1, outcome.value);
    return 0;
  }
  writeSync(1, formatPluginError(outcome.error, call.ok ? call.value.config.cniVersion : VERSION_NEWEST));
  return 1;
}

function readInput(): Result<string, PluginError> {
  try {
    const input = readFileSync(0);
    if (input.length > INPUT_BYTES_MAX) return err(pluginError("decoding", `the network configuration has ${input.length} bytes, at most ${INPUT_BYTES_MAX} are read`));
    return ok(input.toString("utf8"));
  } catch (cause) {
    return err(pluginError("io", `standard input cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`));
  }
}

/** @returns what is to be printed. */
function perform(call: PluginCall): Result<string, PluginError> {
  switch (call.command) {
    case "VERSION":
      return ok(`${JSON.stringify({ cniVersion: call.config.cniVersion, supportedVersions: VERSIONS })}\n`);
    case "ADD": {
      const added = excluded(call) ? ok(undefined) : withNamespace(call.netns, (fd) => ask(call.config, { kind: "add", pod: podOf(call.sandbox), addresses: call.addresses }, fd));
      return added.ok ? ok(`${JSON.stringify(call.previousResult)}\n`) : added;
    }
    case "CHECK": {
      const checked = excluded(call) ? ok(undefined) : withNamespace(call.netns, (fd) => ask(call.config, { kind: "check", pod: podOf(call.sandbox) }, fd));
      return checked.ok ? ok("") : checked;
    }
    case "DEL":
      // The agent learns of the end from the API as well: nothing that goes wrong here may keep the pod.
      if (!excluded(call)) exchange(call.config, { kind: "del", pod: podOf(call.sandbox) }, null, { waitMs: 0, answerMs: DEL_LIMIT_MS });
      return ok("");
    case "GC": {
      // No pod waits for it, and it comes again: an agent that is away is not waited for.
      const collected = ask(call.config, { kind: "gc", validContainerIds: call.validContainerIds }, null, 0);
      return collected.ok ? ok("") : collected;
    }
    case "STATUS": {
      const answer = exchange(call.config, { kind: "status" }, null, { waitMs: 0, answerMs: DEL_LIMIT_MS });
      if (!answer.ok) return err({ ...answer.error, code: pluginError("notAvailable", "").code });
      return answer.value.kind === "done" ? ok("") : err(pluginError("notAvailable", answer.value.why));
    }
    default:
      return unreachable(call);
  }
}

const excluded = ({ config, sandbox }: { readonly config: PluginConfig; readonly sandbox: Sandbox }): boolean => config.excludedNamespaces.includes(sandbox.podNamespace);
const podOf = ({ containerId, podNamespace, podName, podUid }: Sandbox): PodReference => ({ containerId, namespace: podNamespace, name: podName, uid: podUid });

function withNamespace(path: string, use: (fd: number) => Result<void, PluginError>): Result<void, PluginError> {
  const fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return err(pluginError(fd === -ENOENT ? "unknownContainer" : "io", `the pod's network namespace ${path} cannot be opened: ${errnoName(fd)}`));
  try {
    return use(fd);
  } finally {
    close(fd);
  }
}

function ask(config: PluginConfig, request: AgentRequest, namespaceFd: number | null, waitMs = AGENT_WAIT_MS): Result<void, PluginError> {
  const answer = exchange(config, request, namespaceFd, { waitMs, answerMs: ANSWER_LIMIT_MS });
  if (!answer.ok) return answer;
  if (answer.value.kind === "done") return ok(undefined);
  return err(pluginError(answer.value.later ? "tryAgainLater" : "refused", `weft: ${answer.value.why}`));
}

interface Limits {
  readonly waitMs: number;
  readonly answerMs: number;
}

/** One request and its answer. Blocks: this process does nothing else. */
function exchange(config: PluginConfig, request: AgentRequest, namespaceFd: number | null, { waitMs, answerMs }: Limits): Result<AgentAnswer, PluginError> {
  const connected = connectWithin(config.socket, waitMs);
  if (!connected.ok) return connected;
  const fd = connected.value;
  try {
    const sent = sendWithDescriptors(fd, encodeRequest(request), namespaceFd === null ? [] : [namespaceFd]);
    if (sent < 0) return err(pluginError("io", `weft: the agent at ${config.socket} could not be asked: ${errnoName(sent)}`));
    return receive(fd, config.socket, answerMs);
  } finally {
    close(fd);
  }
}

function connectWithin(path: string, waitMs: number): Result<number, PluginError> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    const connected = connectUnix(path, SOCK_SEQPACKET);
    if ("fd" in connected) return ok(connected.fd);
    const nobody = connected.errno === ENOENT || connected.errno === ECONNREFUSED || connected.errno === EAGAIN;
    if (!nobody || performance.now() >= deadline) {
      return err(pluginError("tryAgainLater", `weft: no agent at ${path} (${connected.error}${waitMs === 0 ? "" : `, waited ${waitMs / 1000} s`}): is the DaemonSet weft-cni running on this node? Pods start when it does`));
    }
    Bun.sleepSync(AGENT_LOOK_AGAIN_MS);
  }
}

function receive(fd: number, path: string, answerMs: number): Result<AgentAnswer, PluginError> {
  const into = new Uint8Array(PACKET_BYTES_MAX);
  const deadline = performance.now() + answerMs;
  for (;;) {
    const leftMs = Math.ceil(deadline - performance.now());
    if (leftMs <= 0) return err(pluginError("tryAgainLater", `weft: the agent at ${path} has not answered in ${answerMs / 1000} s`));
    const polled = pollOne(fd, POLLIN, leftMs);
    if (polled === 0 || polled === -EINTR) continue;
    const receipt = receiveWithDescriptors(fd, into, 0);
    if (receipt.kind === "truncated") return err(pluginError("io", `weft: the agent at ${path} answered ${receipt.message}`));
    const { length } = receipt.received;
    if (length === -EAGAIN || length === -EINTR) continue;
    if (length <= 0) return err(pluginError("tryAgainLater", `weft: the agent at ${path} ended before it answered${length === 0 ? "" : ` (${errnoName(length)})`}`));
    const answer = decodeAnswer(into.subarray(0, length));
    return answer.ok ? answer : err(pluginError("io", `weft: the agent at ${path} answered ${answer.error}`));
  }
}
