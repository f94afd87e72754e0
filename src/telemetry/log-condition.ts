// Whether the conditions of an access log hold for a request: what Telemetry resources ask with `filter.expression`. A condition is run as
// it was checked at the border; nothing is parsed here.

import type { Random } from "../core/ports.ts";
import { formatSocketAddress } from "../core/ip.ts";
import { unreachable } from "../core/result.ts";
import type { AccessLogCondition, LogAttribute, LogStep } from "../mesh/l7/telemetry.ts";
import { answerDetails, authorityOf } from "./request-facts.ts";
import type { RequestRecord } from "./request-record.ts";

/** Null: the request has no such thing. It equals nothing, is neither more nor less than anything, and holds no text. */
type Value = string | number | boolean | null;
type Comparison = Extract<AccessLogCondition, { kind: "status" }>["compare"];

const USER_AGENT = "user-agent";
const REFERER = "referer";

export function holds(condition: AccessLogCondition, r: RequestRecord, random: Random): boolean {
  switch (condition.kind) {
    case "sample": return condition.fraction >= 1 || random.next() < condition.fraction;
    case "slowerThanMs": return r.endedMs - r.startedMs > condition.value;
    case "status": return compare(r.status, condition.compare, condition.value);
    case "expression": return run(condition.steps, r, random);
    default: return unreachable(condition);
  }
}

/** Names of the fields that the record must keep for them. */
export function fieldsOf(conditions: readonly AccessLogCondition[], side: "request" | "response"): readonly string[] {
  const names: string[] = [];
  for (const condition of conditions) {
    if (condition.kind !== "expression") continue;
    for (const step of condition.steps) {
      if (step.kind === "field" && step.side === side) names.push(step.name);
      else if (step.kind === "attribute" && side === "request") names.push(...(step.name === "request.useragent" ? [USER_AGENT] : step.name === "request.referer" ? [REFERER] : []));
    }
  }
  return names;
}

function run(steps: readonly LogStep[], r: RequestRecord, random: Random): boolean {
  const stack: Value[] = [];
  const pop = (): Value => stack.pop() ?? null;
  for (const step of steps) {
    switch (step.kind) {
      case "literal": stack.push(step.value); break;
      case "attribute": stack.push(attribute(step.name, r)); break;
      case "field": stack.push((step.side === "request" ? r.requestFields : r.responseFields)?.value(step.name) ?? null); break;
      case "random": stack.push(random.next()); break;
      case "present": stack.push(pop() !== null); break;
      case "not": stack.push(pop() !== true); break;
      case "and": {
        const right = pop();
        stack.push(pop() === true && right === true);
        break;
      }
      case "or": {
        const right = pop();
        stack.push(pop() === true || right === true);
        break;
      }
      case "compare": {
        const right = pop();
        stack.push(compare(pop(), step.compare, right));
        break;
      }
      case "text": {
        const [part, text] = [pop(), pop()];
        stack.push(typeof text === "string" && typeof part === "string" && testText(text, step.test, part));
        break;
      }
      default: unreachable(step);
    }
  }
  return pop() === true;
}

function testText(text: string, test: Extract<LogStep, { kind: "text" }>["test"], part: string): boolean {
  switch (test) {
    case "startsWith": return text.startsWith(part);
    case "endsWith": return text.endsWith(part);
    case "contains": return text.includes(part);
    default: return unreachable(test);
  }
}

function compare(left: Value, how: Comparison, right: Value): boolean {
  if (how === "==") return left !== null && left === right;
  if (how === "!=") return left === null || left !== right;
  if (left === null || right === null) return false;
  switch (how) {
    case ">=": return left >= right;
    case "<=": return left <= right;
    case ">": return left > right;
    case "<": return left < right;
    default: return unreachable(how);
  }
}

function attribute(name: LogAttribute, r: RequestRecord): Value {
  switch (name) {
    case "request.method": return r.method;
    case "request.path": return r.path + r.query;
    case "request.url_path": return r.path;
    case "request.query": return r.query.slice(1);
    case "request.host": return authorityOf(r);
    case "request.scheme": return r.scheme;
    case "request.protocol": return r.version;
    case "request.id": return r.requestId;
    case "request.useragent": return r.requestFields.value(USER_AGENT) ?? null;
    case "request.referer": return r.requestFields.value(REFERER) ?? null;
    case "request.size": return r.requestBytes;
    case "request.duration":
    case "response.duration":
    case "response.total_duration": return r.endedMs - r.startedMs;
    case "response.code": return r.status;
    case "response.code_details": return answerDetails(r);
    case "response.grpc_status": return r.grpcStatus;
    case "response.size": return r.responseBytes;
    case "connection.mtls": return r.mutualTls;
    case "source.address": return formatSocketAddress(r.sourceAddress);
    case "source.port": return r.sourceAddress.port;
    case "destination.address": return r.destinationAddress === null ? null : formatSocketAddress(r.destinationAddress);
    case "destination.port": return r.destinationAddress?.port ?? null;
    case "upstream.address": return r.upstreamAddress;
    case "xds.route_name": return r.ruleName ?? r.routeId;
    case "xds.cluster_name": return r.cluster;
    case "weft.reason": return r.code;
    default: return unreachable(name);
  }
}
