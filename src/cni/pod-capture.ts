// From a pod to the redirection rules of its namespace. Pure.

import { type IpAddress, parseCidr, parsePort } from "../core/ip.ts";
import { REDIRECT_DEFAULTS, type RedirectOptions } from "../net/redirect/options.ts";
import { BYPASS_INBOUND_CAPTURE, DNS_CAPTURE, EXCLUDE_INBOUND_PORTS, EXCLUDE_OUTBOUND_IP_RANGES, EXCLUDE_OUTBOUND_PORTS } from "../resources/annotations.ts";
import type { Pod } from "./pod.ts";

/** Stamped on the rules: the agents of a node come one after the other, and each goes on with the rules of the one before. */
export const RULES_OWNER = "weft-cni";

export interface CaptureSettings {
  readonly dnsCapture: boolean;
  readonly packetMark: number;
  /** Where probes come from; see net/redirect/probe-source.ts. */
  readonly probeAddresses: readonly IpAddress[];
}

export interface PodCapture {
  readonly options: RedirectOptions;
  /** Annotations that are not understood and count as absent: more is captured, never less. */
  readonly ignored: readonly string[];
}

export function podCapture(pod: Pod, settings: CaptureSettings): PodCapture {
  const ignored: string[] = [];
  const list = <T>(key: string, parse: (text: string) => T | null): T[] => {
    const parsed = (pod.annotations[key] ?? "").split(",").map((item) => item.trim()).filter((item) => item !== "").map(parse);
    const good = parsed.filter((item) => item !== null);
    if (good.length === parsed.length) return good;
    ignored.push(`${key}: ${JSON.stringify(pod.annotations[key])}`);
    return [];
  };
  const flag = (key: string): boolean | null => {
    const text = pod.annotations[key];
    if (text !== undefined && text !== "true" && text !== "false") ignored.push(`${key}: ${JSON.stringify(text)}`);
    return text === "true" ? true : text === "false" ? false : null;
  };
  return {
    ignored,
    options: {
      ...REDIRECT_DEFAULTS,
      owner: RULES_OWNER,
      dnsCapture: flag(DNS_CAPTURE) ?? settings.dnsCapture,
      inboundCapture: flag(BYPASS_INBOUND_CAPTURE) !== true,
      packetMark: { value: settings.packetMark, mask: REDIRECT_DEFAULTS.packetMark.mask },
      probes: pod.probePorts.length === 0 ? null : { addresses: settings.probeAddresses, ports: pod.probePorts },
      exclusions: {
        ...REDIRECT_DEFAULTS.exclusions,
        outboundPorts: list(EXCLUDE_OUTBOUND_PORTS, port),
        inboundPorts: list(EXCLUDE_INBOUND_PORTS, port),
        outboundCidrs: list(EXCLUDE_OUTBOUND_IP_RANGES, parseCidr),
      },
    },
  };
}

function port(text: string): number | null {
  const number = parsePort(text);
  return number === 0 ? null : number;
}
