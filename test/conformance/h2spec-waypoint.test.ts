// Every case of h2spec against a waypoint: HTTP/2 with prior knowledge from the client, HTTP/1.1 and HTTP/2 to the server.

import { unsealed } from "../kit/box.ts";
import { firstReason, testUnless } from "../kit/skip.ts";
import { NO_LIMITS, trafficPolicy } from "../kit/upstreams.ts";
import { backend1, backend2, WaypointFixture } from "../kit/waypoint.ts";
import { CASES_TIMEOUT_MS, expectAll, needsH2spec, runH2spec } from "./h2spec-program.ts";

/**
 * h2spec takes the maximum frame size to be the RFC's initial 16 KiB, a waypoint says that it takes more; and what begins otherwise than
 * HTTP/2 is HTTP/1 here, and refused as such.
 */
const EXPECTED = ["Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE", "Sends invalid connection preface"];

/** h2spec passes over a case of 6.9.2 where an answer is shorter than five bytes. */
const ANSWER = "what came was read";

const servers = {
  "HTTP/1.1": () => backend1((request, response) => void request.resume().on("end", () => response.end(ANSWER))),
  "HTTP/2": () => backend2((stream) => void stream.resume().on("end", () => {
    if (stream.destroyed) return;
    stream.respond({ ":status": 200 });
    stream.end(ANSWER);
  })),
};

for (const [version, start] of Object.entries(servers)) {
  testUnless(firstReason(unsealed, needsH2spec))(
    `h2spec: a waypoint in front of a server that speaks ${version} passes every case`,
    async () => {
      await using server = await start();
      const limits = { ...NO_LIMITS, upgradeToHttp2: version === "HTTP/2" };
      await using waypoint = new WaypointFixture({ endpoints: [server], l7: { trafficPolicies: [{ service: trafficPolicy({}).service, policies: [trafficPolicy({ limits })] }] } });
      expectAll(await runH2spec(waypoint.port), EXPECTED);
    },
    CASES_TIMEOUT_MS,
  );
}
