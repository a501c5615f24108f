// Adds and links a number, as a page does, with the client that is generated from openapi.yaml. `make test-slow` runs it.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { paths } from "./api.d.ts";

const { FUNCTIONS_URL: baseUrl, PLATFORM_URL: platform, TOKEN: token } = process.env;
const client = createClient<paths, "application/json">({ baseUrl: baseUrl!, headers: { Authorization: `Bearer ${token}` } });

const { data: created } = await client.POST("/wpp-create", {
  body: { add_new: true },
});
assert.ok(created?.state === "qr_issued");
const { session, qrcode } = created;
// @ts-expect-error: a field that openapi.yaml does not define.
assert.equal(created.hint, undefined);

const { data: shown } = await client.GET("/wpp-qr", { params: { query: { session } } });
assert.ok(shown?.state === "qr_issued");
const qr: string = shown.qr;
assert.equal(qr, qrcode);

// A phone scans it.
await fetch(`${platform}/_sim/scan`, { method: "POST", body: JSON.stringify({ session }) });

const { data: linked } = await client.POST("/wpp-status", { body: { session, force: true } });
assert.ok(linked?.state === "connected");
// @ts-expect-error: only a number that waits for a scan has a QR code.
assert.equal(linked.qrcode, undefined);
assert.equal(linked.session, session);
const { data: polled } = await client.GET("/wpp-status", { params: { query: { session, force: "true" } } });
assert.deepEqual({ ...polled, seen_at: linked.seen_at }, linked);

const { error, response } = await client.POST("/wpp-qr", { body: { session_name: "another" } });
assert.equal(response.status, 404);
assert.equal(error?.code, "number_not_found");
console.log(`linked ${session}`);
