import { expect, test } from "bun:test";
import { workload } from "../../../test/kit/mesh-records.ts";
import { parseIp } from "../../core/ip.ts";
import { endpointAddress } from "./endpoint-address.ts";

test("an endpoint's address: IPv6 in brackets, a name where no address is known", () => {
  const at = (ip: string | null, hostname = ""): string => endpointAddress({ workload: workload({ name: "web", hostname }), ip: ip === null ? null : parseIp(ip), targetPort: 8080 });
  expect(at("198.18.0.1")).toBe("198.18.0.1:8080");
  expect(at("2001:db8::1")).toBe("[2001:db8::1]:8080");
  expect(at(null, "db.example")).toBe("db.example:8080");
});
