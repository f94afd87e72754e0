// Netlink sockets made inside a network namespace: one request and its answer, a dump, or an atomic nfnetlink batch.
// Synchronous on purpose: the kernel answers within the system call, and nothing may run between a question and its answer.

import { type Fault, RETRY_NEVER } from "../core/fault.ts";
import { err, ok, type Result } from "../core/result.ts";
import {
  type MalformedNetlink, type NetlinkAnswer, type NetlinkMessage, NetlinkWriter, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
  NLMSG_NOOP, NLMSG_OVERRUN, readAnswer, readMessages, type Stamp, viewOf,
} from "../wire/netlink/message.ts";
import { writeBatchBegin, writeBatchEnd } from "../wire/netlink/nf-tables.ts";
import {
  AF_NETLINK, close, connect, EAGAIN, EINTR, ENOBUFS, errnoName, MSG_TRUNC, recv, send, setIntOption, setOption, SO_RCVBUFFORCE, SO_RCVTIMEO, SOCK_CLOEXEC, SOCK_RAW, socket, SOL_SOCKET,
} from "./libc.ts";
import { inNamespace } from "./namespace.ts";

export const NETLINK_ROUTE = 0;
export const NETLINK_SOCK_DIAG = 4;
export const NETLINK_NETFILTER = 12;
export type NetlinkProtocol = typeof NETLINK_ROUTE | typeof NETLINK_SOCK_DIAG | typeof NETLINK_NETFILTER;

const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;

/** The kernel's dump messages end at 32 KiB; a larger one would be cut, which is reported. */
const RECEIVE_BYTES = 64 * 1024;
/** A kernel that is silent for this long has lost our request. */
const RECEIVE_TIMEOUT_S = 5;
/** Room for the answers when every message of a large batch fails; the default holds some 200. */
const RECEIVE_QUEUE_BYTES = 4 * 1024 * 1024;
/** Changes asked for in one message: their answers, should each be refused, have room in the queue. */
const REQUESTS_AT_ONCE = 256;
/** A dump that changes while it is read is asked for again this many times. */
const DUMP_ATTEMPTS = 8;
/** Sockets come one a message; a namespace with more than this is beyond what we can serve. */
const DUMP_MESSAGES_MAX = 2_000_000;

export type NetlinkFault = Fault<"netlink_refused" | "netlink_malformed" | "netlink_socket"> & {
  /** The kernel's error number; 0 when it was not the kernel that refused. */
  readonly errno: number;
};

export interface NetlinkRequest {
  /** What it is about, for the fault: `table inet weft`, `link veth0`. */
  readonly object: string;
  /** Writes exactly one message. */
  readonly write: (writer: NetlinkWriter, stamp: Stamp) => void;
}

export class NetlinkSocket implements Disposable {
  readonly #fd: number;
  readonly #into = new Uint8Array(RECEIVE_BYTES);
  #sequence = 0;
  #closed = false;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @param namespaceFd null for the namespace this thread is in. */
  static open(namespaceFd: number | null, protocol: NetlinkProtocol): Result<NetlinkSocket, NetlinkFault> {
    const make = (): number => socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    const fd = namespaceFd === null ? make() : inNamespace(namespaceFd, make);
    if (fd < 0) return socketFault("cannot open a netlink socket", fd);
    // Connected to the kernel (port 0): nobody else can queue a message here.
    const connected = connect(fd, kernelAddress());
    if (connected < 0) {
      close(fd);
      return socketFault("cannot connect a netlink socket", connected);
    }
    // Each may be missing (an old kernel, no privilege): then errors come without words, and a failing batch must be smaller.
    setIntOption(fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
    setIntOption(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
    setIntOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_QUEUE_BYTES);
    const timed = setOption(fd, SOL_SOCKET, SO_RCVTIMEO, timeval(RECEIVE_TIMEOUT_S));
    if (timed < 0) {
      close(fd);
      return socketFault("cannot set a netlink socket's timeout", timed);
    }
    return ok(new NetlinkSocket(fd));
  }

  /** Asks for one change and waits for the kernel's answer. */
  request(request: NetlinkRequest): Result<void, NetlinkFault> {
    const sequence = this.#nextSequence();
    const writer = new NetlinkWriter();
    request.write(writer, { flags: NLM_F_REQUEST | NLM_F_ACK, sequence });
    const sent = this.#send(writer, request.object);
    if (!sent.ok) return sent;
    const answers = this.#answersUntil((answer) => answer.sequence === sequence, request.object);
    if (!answers.ok) return answers;
    const refused = answers.value.find((answer) => answer.sequence === sequence && answer.errno !== 0);
    return refused === undefined ? ok(undefined) : refusal(request.object, refused);
  }

  /**
   * Asks for changes that do not depend on one another, many in one message to the kernel.
   * @param gone error numbers of refusals that are as good as done.
   * @returns how many were done; the first other refusal, when some of them may have been done.
   */
  requestEach(requests: readonly NetlinkRequest[], gone: readonly number[]): Result<number, NetlinkFault> {
    let done = 0;
    for (let at = 0; at < requests.length; at += REQUESTS_AT_ONCE) {
      const part = requests.slice(at, at + REQUESTS_AT_ONCE);
      const writer = new NetlinkWriter();
      const first = this.#sequence + 1;
      for (const [i, request] of part.entries()) request.write(writer, { flags: i === part.length - 1 ? NLM_F_REQUEST | NLM_F_ACK : NLM_F_REQUEST, sequence: this.#nextSequence() });
      const { object } = part[0]!;
      const sent = this.#send(writer, object);
      if (!sent.ok) return sent;
      const last = this.#sequence;
      const answers = this.#answersUntil((answer) => answer.sequence === last, object);
      if (!answers.ok) return answers;
      const refused = answers.value.filter(({ sequence, errno }) => sequence >= first && sequence <= last && errno !== 0);
      const real = refused.find(({ errno }) => !gone.includes(errno));
      if (real !== undefined) return refusal(part[real.sequence - first]!.object, real);
      done += part.length - refused.length;
    }
    return ok(done);
  }

  /** Asks for one object. `parse` gets the message that answers; its payload is borrowed until it returns. */
  get<T>(request: NetlinkRequest, parse: (message: NetlinkMessage) => Result<T, MalformedNetlink>): Result<T | null, NetlinkFault> {
    const sequence = this.#nextSequence();
    const writer = new NetlinkWriter();
    request.write(writer, { flags: NLM_F_REQUEST | NLM_F_ACK, sequence });
    const sent = this.#send(writer, request.object);
    if (!sent.ok) return sent;
    let found: T | null = null;
    for (;;) {
      const messages = this.#receive(request.object);
      if (!messages.ok) return messages;
      for (const message of messages.value) {
        if (message.sequence !== sequence || message.type === NLMSG_NOOP) continue;
        if (message.type === NLMSG_ERROR) {
          const answer = readAnswer(message);
          if (!answer.ok) return malformed(request.object, answer.error);
          return answer.value.errno === 0 ? ok(found) : refusal(request.object, answer.value);
        }
        const parsed = parse(message);
        if (!parsed.ok) return malformed(request.object, parsed.error);
        found = parsed.value;
      }
    }
  }

  /**
   * Reads every object of a kind. A list that changes under the reading is read again, so that the result was true at one moment.
   * @param parse keeps what it wants of each message (payload borrowed until it returns); null skips it.
   */
  dump<T>(request: NetlinkRequest, parse: (message: NetlinkMessage) => Result<T | null, MalformedNetlink>): Result<T[], NetlinkFault> {
    for (let attempt = 1; attempt <= DUMP_ATTEMPTS; attempt++) {
      const outcome = this.#dumpOnce(request, parse);
      if (!outcome.ok || outcome.value !== "interrupted") return outcome as Result<T[], NetlinkFault>;
    }
    return socketFault(`the list of ${request.object} kept changing while it was read (${DUMP_ATTEMPTS} times)`, 0);
  }

  /**
   * Applies an nf_tables batch: all of it, or nothing.
   * @param generation when given, the kernel refuses (ERESTART) if anything has changed the rules since that generation.
   */
  batch(subject: string, requests: readonly NetlinkRequest[], generation: number | null): Result<void, NetlinkFault> {
    const writer = new NetlinkWriter();
    const begin = this.#nextSequence();
    writeBatchBegin(writer, { flags: NLM_F_REQUEST, sequence: begin }, generation);
    const objects = new Map<number, string>([[begin, subject]]);
    let last = begin;
    requests.forEach((request, i) => {
      last = this.#nextSequence();
      objects.set(last, request.object);
      // Failures are answered whether asked for or not; the acknowledgement of the last says that the rest is done.
      const flags = i === requests.length - 1 ? NLM_F_REQUEST | NLM_F_ACK : NLM_F_REQUEST;
      request.write(writer, { flags, sequence: last });
    });
    writeBatchEnd(writer, { flags: NLM_F_REQUEST, sequence: this.#nextSequence() });
    const sent = this.#send(writer, subject);
    if (!sent.ok) return sent;
    const answers = this.#answersUntil((answer) => answer.sequence === last || (answer.sequence === begin && answer.errno !== 0), subject);
    if (!answers.ok) return answers;
    const refused = answers.value.find((answer) => objects.has(answer.sequence) && answer.errno !== 0);
    return refused === undefined ? ok(undefined) : refusal(objects.get(refused.sequence) ?? subject, refused);
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    close(this.#fd);
  }

  #dumpOnce<T>(request: NetlinkRequest, parse: (message: NetlinkMessage) => Result<T | null, MalformedNetlink>): Result<T[] | "interrupted", NetlinkFault> {
    const sequence = this.#nextSequence();
    const writer = new NetlinkWriter();
    request.write(writer, { flags: NLM_F_REQUEST | NLM_F_DUMP, sequence });
    const sent = this.#send(writer, request.object);
    if (!sent.ok) return sent;
    const found: T[] = [];
    let interrupted = false;
    for (let seen = 0; seen <= DUMP_MESSAGES_MAX; ) {
      const messages = this.#receive(request.object);
      if (!messages.ok) return messages;
      for (const message of messages.value) {
        if (message.sequence !== sequence || message.type === NLMSG_NOOP) continue;
        seen += 1;
        if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
        if (message.type === NLMSG_DONE) return dumpEnd(request.object, message, interrupted ? "interrupted" : found);
        if (message.type === NLMSG_ERROR) {
          const answer = readAnswer(message);
          return answer.ok ? refusal(request.object, answer.value) : malformed(request.object, answer.error);
        }
        const parsed = parse(message);
        if (!parsed.ok) return malformed(request.object, parsed.error);
        if (parsed.value !== null) found.push(parsed.value);
      }
    }
    return socketFault(`more than ${DUMP_MESSAGES_MAX} messages listing ${request.object}`, 0);
  }

  #nextSequence(): number {
    this.#sequence = (this.#sequence + 1) >>> 0;
    return this.#sequence;
  }

  #send(writer: NetlinkWriter, object: string): Result<void, NetlinkFault> {
    const bytes = writer.finish();
    for (;;) {
      const sent = send(this.#fd, bytes, 0);
      if (sent === -EINTR) continue;
      if (sent === bytes.length) return ok(undefined);
      return sent < 0 ? socketFault(`cannot ask the kernel about ${object}`, sent) : socketFault(`${sent} of ${bytes.length} bytes taken asking about ${object}`, 0);
    }
  }

  /** Collects answers until one for which `isLast` holds. Those to earlier requests are stale and dropped by their sequence. */
  #answersUntil(isLast: (answer: NetlinkAnswer) => boolean, object: string): Result<NetlinkAnswer[], NetlinkFault> {
    const answers: NetlinkAnswer[] = [];
    for (;;) {
      const messages = this.#receive(object);
      if (!messages.ok) return messages;
      for (const message of messages.value) {
        if (message.type !== NLMSG_ERROR) continue;
        const answer = readAnswer(message);
        if (!answer.ok) return malformed(object, answer.error);
        answers.push(answer.value);
      }
      if (answers.some(isLast)) return ok(answers);
    }
  }

  #receive(object: string): Result<NetlinkMessage[], NetlinkFault> {
    for (;;) {
      const length = recv(this.#fd, this.#into, MSG_TRUNC);
      if (length === -EINTR) continue;
      if (length === -EAGAIN) return socketFault(`no answer from the kernel about ${object} in ${RECEIVE_TIMEOUT_S} s`, 0);
      if (length === -ENOBUFS) return socketFault(`the kernel had no room for its answer about ${object}; whether it was done is not known`, length);
      if (length < 0) return socketFault(`cannot read the kernel's answer about ${object}`, length);
      if (length > this.#into.length) return socketFault(`an answer of ${length} bytes about ${object}, we read at most ${this.#into.length}`, 0);
      const messages = readMessages(this.#into.subarray(0, length));
      if (!messages.ok) return malformed(object, messages.error);
      if (messages.value.some((message) => message.type === NLMSG_OVERRUN)) return socketFault(`the kernel lost answers about ${object}`, 0);
      return messages;
    }
  }
}

/** The end of a dump carries an error number of its own. */
function dumpEnd<T>(object: string, done: NetlinkMessage, found: T): Result<T, NetlinkFault> {
  if (done.payload.length < 4) return ok(found);
  const code = viewOf(done.payload).getInt32(0, true);
  return code < 0 ? refusal(object, { errno: -code, sequence: done.sequence, text: "", offset: null }) : ok(found);
}

function refusal(object: string, answer: NetlinkAnswer): { ok: false; error: NetlinkFault } {
  const words = answer.text === "" ? "" : `: ${answer.text}`;
  const message = `the kernel refused ${object}: ${errnoName(answer.errno)}${words}${hintFor(answer.errno)}`;
  return err({ code: "netlink_refused", message, blame: "operator", dies: "nothing", retry: RETRY_NEVER, errno: answer.errno });
}

function hintFor(errno: number): string {
  if (errno === 1) return "; CAP_NET_ADMIN in the namespace's user namespace is needed";
  if (errno === 95 || errno === 93) return "; the kernel was built without this, or its module is not loaded";
  return "";
}

function socketFault(what: string, errno: number): { ok: false; error: NetlinkFault } {
  const message = errno === 0 ? what : `${what}: ${errnoName(errno)}`;
  return err({ code: "netlink_socket", message, blame: "us", dies: "nothing", retry: RETRY_NEVER, errno: Math.abs(errno) });
}

function malformed(object: string, cause: MalformedNetlink): { ok: false; error: NetlinkFault } {
  return err({ ...cause, message: `${cause.message}, asked about ${object}`, errno: 0 });
}

/** struct sockaddr_nl with port 0 and no groups. */
function kernelAddress(): Uint8Array {
  const bytes = new Uint8Array(12);
  bytes[0] = AF_NETLINK;
  return bytes;
}

/** struct timeval of a 64-bit system. */
function timeval(seconds: number): Uint8Array {
  const bytes = new Uint8Array(16);
  viewOf(bytes).setBigInt64(0, BigInt(seconds), true);
  return bytes;
}
