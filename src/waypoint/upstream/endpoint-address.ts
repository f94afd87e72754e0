// Where an endpoint is reached, as text: for messages, the access log and the administration port.

import { formatSocketAddress } from "../../core/ip.ts";
import type { Picked } from "../../policy/candidates.ts";

/** `198.18.0.1:8080`, `[2001:db8::1]:8080`, or by the name of an endpoint that is known by a name only. */
export function endpointAddress({ workload, ip, targetPort }: Picked): string {
  return ip === null ? `${workload.hostname}:${targetPort}` : formatSocketAddress({ ip, port: targetPort });
}
