// `make migrate`: pushes migrations/ to the database that DATABASE_URL names, with the Supabase CLI.
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
const { DATABASE_URL, ...env } = { ...process.env, SUPABASE_TELEMETRY_DISABLED: "1" };
const run = (program, args, stdio = "inherit") => spawnSync(program, args, { env, stdio }).status ?? 1;
const refuse = (why) => process.exit(console.error(`migrate: DATABASE_URL ${why}`) ?? 1);
const url = URL.parse(DATABASE_URL);
if (!/^postgres(ql)?:$/.test(url?.protocol)) refuse("is empty or no address: postgresql://user:password@host:5432/postgres");
if (/%(?![\da-f]{2})/i.test(url.password)) refuse("has a plain % in its password: write %25");
if ([url.port, url.searchParams.get("port")].includes("6543")) refuse("names the transaction pooler: take port 5432");
// Without an sslmode, the CLI verifies no certificate. If there are two, it uses the first.
if (!url.searchParams.get("sslmode")) url.search = `sslmode=verify-full&${url.search.slice(1)}`;
if (run("sh", ["local/tools.sh", "migrate"])) process.exit(1);
// All users of the machine can read a program's arguments.
if (url.password) [env.PGPASSWORD, url.password] = [decodeURIComponent(url.password), ""];
const workdir = mkdtempSync(`${tmpdir()}/migrate-`);
process.on("exit", () => rmSync(workdir, { recursive: true })).on("SIGINT", () => {});
const options = ["--workdir", workdir, "--db-url", url.href];
const cli = (verb, stdio) => run("local/migrate/node_modules/.bin/supabase", [...verb, ...options], stdio);
// The CLI needs a file for each record. The records of other repositories come from the database.
cli(["migration", "fetch"], "ignore");
const filter = (path) => /^migrations(\/\d+_.*)?$/.test(path);
cpSync("migrations", `${workdir}/supabase/migrations`, { recursive: true, filter });
process.exitCode = cli(["db", "push", "--include-all"]);
