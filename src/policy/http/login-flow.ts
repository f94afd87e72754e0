// A login under way: what was sent to the provider and has to come back with the same browser. Kept by the browser in a short-lived
// encrypted cookie of its own, so that several tabs can log in at once and nobody else can finish a login that they did not begin.

import type { LoginPolicy } from "../../mesh/l7/access.ts";
import { clearCookie, cookieBase, cookieNames, setCookie } from "./login-cookies.ts";
import type { LoginCrypto } from "./login-port.ts";
import { loginOwner, SESSION_SKEW_MS } from "./login-session.ts";
import type { FieldLookup } from "./request.ts";
import { cookieValues, equalsInConstantTime } from "./session.ts";

export interface LoginFlow {
  readonly state: string;
  readonly nonce: string;
  /** PKCE, RFC 7636. */
  readonly verifier: string;
  /** Path and query at this host. */
  readonly returnTo: string;
  readonly startedMs: number;
}

/** Time to type a password, find the second factor and be asked for consent. */
export const FLOW_MS = 10 * 60_000;

/** Tabs of one browser that log in at once; the oldest gives way. Each costs up to 3 KB in every request. */
export const FLOWS_MAX = 5;

/** A longer path and query is not returned to, but the front page: it would not fit into a cookie. */
export const RETURN_CHARS_MAX = 1_500;

interface FlowContext {
  readonly crypto: LoginCrypto;
  readonly secure: boolean;
  readonly nowMs: number;
}

function flowName(policy: LoginPolicy, state: string, { crypto, secure }: FlowContext): string {
  return `${flowPrefix(policy, secure)}${crypto.sha256(state).slice(0, 12)}`;
}

/** The `set-cookie` values that begin a flow and drop the oldest ones above FLOWS_MAX. */
export function flowCookies(policy: LoginPolicy, flow: LoginFlow, fields: FieldLookup, context: FlowContext): readonly string[] {
  const { crypto, secure, nowMs } = context;
  const value = crypto.seal(JSON.stringify(flow), purpose(policy));
  const begun = flowNames(policy, fields, secure).map((name) => ({ name, startedMs: open(policy, fields, name, context)?.startedMs ?? 0 }));
  const alive = begun.filter(({ startedMs }) => startedMs + FLOW_MS > nowMs).sort((a, b) => b.startedMs - a.startedMs).slice(0, FLOWS_MAX - 1);
  return [setCookie(flowName(policy, flow.state, context), value, { lifetimeMs: FLOW_MS, secure }), ...begun.filter((one) => !alive.includes(one)).map(({ name }) => clearCookie(name, secure))];
}

/** The login that this browser began with this state; `expired` when that was too long ago, null when it began none. */
export function readFlow(policy: LoginPolicy, state: string, fields: FieldLookup, context: FlowContext): LoginFlow | "expired" | null {
  const flow = open(policy, fields, flowName(policy, state, context), context);
  if (flow === null || !equalsInConstantTime(flow.state, state)) return null;
  return context.nowMs < flow.startedMs + FLOW_MS && flow.startedMs <= context.nowMs + SESSION_SKEW_MS ? flow : "expired";
}

export function clearFlow(policy: LoginPolicy, state: string, context: FlowContext): string {
  return clearCookie(flowName(policy, state, context), context.secure);
}

export function flowNames(policy: LoginPolicy, fields: FieldLookup, secure: boolean): readonly string[] {
  const prefix = flowPrefix(policy, secure);
  return cookieNames(fields).filter((name) => name.startsWith(prefix));
}

const flowPrefix = (policy: LoginPolicy, secure: boolean): string => `${cookieBase(policy, secure)}-flow-`;
const purpose = (policy: LoginPolicy): string => `flow ${loginOwner(policy)}`;

function open(policy: LoginPolicy, fields: FieldLookup, name: string, { crypto }: FlowContext): LoginFlow | null {
  const [sealed] = cookieValues(fields, name);
  const text = sealed === undefined ? null : crypto.open(sealed, purpose(policy));
  if (text === null) return null;
  const flow: LoginFlow = JSON.parse(text);
  return flow;
}
