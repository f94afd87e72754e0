// What an answer to CONNECT other than 200 means, in words for whoever reads the log.

import { formatSocketAddress, type SocketAddress } from "../core/ip.ts";
import { type CloseCause, causes } from "./close-cause.ts";

/** @param who answered: the destination (or its waypoint), or the gateway to its network. */
export function connectRefusal(status: number, tunnelTo: SocketAddress, who: "destination" | "gateway"): CloseCause {
  const answered = `CONNECT through ${formatSocketAddress(tunnelTo)} answered ${status}`;
  switch (status) {
    case 401:
      return causes.policyDenied(`the ${who}'s policy denied the connection (${answered}); its agent's log names the policy`);
    case 400:
      return causes.destinationRefused(`the ${who} took the request for malformed or not its own (${answered})`);
    case 503:
      return causes.destinationRefused(who === "gateway" ? `the gateway reached no endpoint of the service (${answered})` : `the destination could not reach its application (${answered})`);
    default:
      return causes.destinationRefused(`${answered}, wanted 200`);
  }
}
