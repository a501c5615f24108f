"""`make slow-smoke`: deploys the output of `sam build` to an emulator of AWS, and calls it there.

The binaries are the real ones. The emulator (ministack) replaces CloudFormation, Lambda, IAM and Secrets Manager; a few lines here
replace the database and the platform. Three things are not tested here: the HTTP API's own CORS and errors (the emulator makes no
routes from the API's definition), TLS to the upstreams (see local/tests/api/tls.rs), and the alarms on the sum of the three
functions (the emulator cannot add metrics).
"""

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
from samcli.yamlhelper import yaml_dump, yaml_parse

FUNCTIONS = {"WppCreate": "wpp-create", "WppQr": "wpp-qr", "WppStatus": "wpp-status"}
# The code that each function returns once the upstreams accept its keys.
EXPECTED_CODES = {
    "wpp-create": "platform_unavailable", "wpp-qr": "organization_not_found", "wpp-status": "organization_not_found",
}
STACK, REGION = "smoke", "eu-central-1"
TOOLS = Path(__file__).parent.parent / ".tools"
# After a refused key, the functions reread the secret at most once in 30 s.
ROTATION_TIMEOUT_S = 60


def step(text):
    print(f"smoke: {text}", flush=True)


def check(holds, otherwise):
    if not holds:
        raise SystemExit(f"smoke: FAILED: {otherwise}")


class Upstreams(BaseHTTPRequestHandler):
    """The database and the platform. Each accepts only its key in `accepted`. The database has no users."""

    accepted = {}

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.rsplit("/", 1)[-1]
        if self.path.startswith("/rest/v1/rpc/"):
            now = int(time.time() * 1000)
            answers = {
                "wpp_find_number": {"now_ms": now, "organization_id": None, "number": None},
                "wpp_begin_creation": {
                    "now_ms": now,
                    "outcome": "begun",
                    "creation": str(uuid.uuid4()),
                    "organization_id": str(uuid.uuid4()),
                    "platform_id": "smoke",
                    "number": None,
                    "is_usable": False,
                },
            }
            if self.headers.get("apikey") == self.accepted["SUPABASE_SERVICE_ROLE_KEY"]:
                return self.answer(200, answers.get(path))
            return self.answer(401, {"message": "Invalid API key"})
        if self.headers.get("authorization") == f"Bearer {self.accepted['WPP_SECRET']}":
            return self.answer(500, {"error": "secret accepted; create is not implemented"})
        return self.answer(401, {"error": "Invalid secret"})

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_emulator(scratch, port):
    """Starts the emulator on the loopback address only. A function could use a variable of this process, so it gets none of them
    but `PATH`."""
    env = {
        "PATH": os.environ["PATH"], "HOME": scratch, "TMPDIR": scratch, "STATE_DIR": f"{scratch}/state",
        "BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1", "GATEWAY_PORT": str(port),
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "SFTP_ENABLED": "0", "IOT_MTLS_ENABLED": "0",
        "LAMBDA_EXECUTOR": "local", "NO_PROXY": "127.0.0.1",
    }
    log = open(f"{scratch}/ministack.log", "w")
    process = subprocess.Popen([TOOLS / "ministack/bin/ministack"], env=env, stdout=log, stderr=log, start_new_session=True)
    for _ in range(300):
        check(process.poll() is None, f"the emulator has ended:\n{Path(log.name).read_text()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.1)
    raise SystemExit("smoke: FAILED: the emulator does not answer")


def stop_group(process):
    """Stops the emulator and the function processes that it started."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signum)
            process.wait(timeout=5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass


def user_token(secret):
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"sub": str(uuid.uuid4()), "role": "authenticated", "aud": "authenticated", "exp": int(time.time()) + 600}
    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.digest(secret.encode(), signed, hashlib.sha256))).decode()


def call(base, function, token=None):
    """Returns the status, headers and body of a POST."""
    body = b'{"session": "smoke"}' if function == "wpp-qr" else b"{}"
    request = urllib.request.Request(f"{base}/functions/v1/{function}", body, {"content-type": "application/json"})
    if token:
        request.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        try:
            return error.code, error.headers, json.loads(text)
        except ValueError:
            raise SystemExit(f"smoke: FAILED: {function} answers {error.code} {text!r}")


def template():
    """Returns the template of `sam build`. An alarm on the sum of the three functions watches only the first, because the
    emulator cannot add metrics."""
    built = TOOLS.parent / ".aws-sam/build/template.yaml"
    template = yaml_parse(built.read_text())
    for resource in template["Resources"].values():
        for query in resource["Properties"].pop("Metrics", []):
            if "MetricStat" in query:
                metric, stat = query["MetricStat"]["Metric"], query["MetricStat"]
                resource["Properties"] |= metric | {"Statistic": stat["Stat"], "Period": stat["Period"]}
                break
    here = built.with_name("smoke.yaml")
    here.write_text(yaml_dump(template))
    return here


def deploy(parameters):
    overrides = [f"{name}={value}" for name, value in parameters.items()]
    # Used instead of an existing samconfig.toml.
    config = Path(os.environ["HOME"]) / "samconfig.toml"
    config.write_text("version = 0.1")
    sam = subprocess.run(
        [TOOLS / "sam/bin/sam", "deploy", "--template-file", template(), "--stack-name", STACK, "--region", REGION, "--s3-bucket", "artifacts",
         "--no-confirm-changeset", "--no-progressbar", "--config-file", config, "--capabilities", "CAPABILITY_IAM",
         "--parameter-overrides", *overrides],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(sam.returncode == 0, f"sam deploy:\n{sam.stdout}")


def main():
    scratch = tempfile.mkdtemp(prefix="wpp-smoke-")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    # Never use the AWS account of the person who runs this.
    account = {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "smoke", "AWS_SECRET_ACCESS_KEY": "smoke", "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
        "SAM_CLI_TELEMETRY": "0", "HOME": scratch, "TMPDIR": scratch, "NO_PROXY": "127.0.0.1",
    }
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(account)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    upstreams = ThreadingHTTPServer(("127.0.0.1", 0), Upstreams)
    threading.Thread(target=upstreams.serve_forever, daemon=True).start()
    process = start_emulator(scratch, port)
    try:
        smoke(endpoint, f"http://127.0.0.1:{upstreams.server_port}")
    except BaseException:
        print(Path(f"{scratch}/ministack.log").read_text()[-6000:], file=sys.stderr)
        raise
    finally:
        stop_group(process)
        subprocess.run(["rm", "-rf", scratch], check=False)


def smoke(endpoint, upstreams):
    services = ("s3", "secretsmanager", "cloudformation", "lambda", "iam", "apigatewayv2", "logs", "cloudwatch")
    aws = {name: boto3.client(name) for name in services}
    aws["s3"].create_bucket(Bucket="artifacts", CreateBucketConfiguration={"LocationConstraint": REGION})
    secrets = {
        "wpp": {"WPP_SECRET": "platform-secret-1"},
        "supabase": {"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_smoke_1", "SUPABASE_JWT_SECRET": "smoke-jwt-secret-of-32-characters-at-least"},
    }
    create_secret = aws["secretsmanager"].create_secret
    arns = {name: create_secret(Name=name, SecretString=json.dumps(value))["ARN"] for name, value in secrets.items()}
    Upstreams.accepted = secrets["wpp"] | secrets["supabase"]

    deploy({
        "WppBaseUrl": "https://platform.example", "SupabaseUrl": "https://project.example", "Architecture": "x86_64",
        "WppSecretArn": arns["wpp"], "SupabaseSecretArn": arns["supabase"], "CorsAllowedOrigins": "https://crm.example",
    })
    stack = aws["cloudformation"].describe_stacks(StackName=STACK)["Stacks"][0]
    check(stack["StackStatus"] == "CREATE_COMPLETE", stack["StackStatus"])
    resources = aws["cloudformation"].describe_stack_resources(StackName=STACK)["StackResources"]
    names = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
    unfinished = [resource["LogicalResourceId"] for resource in resources if resource["ResourceStatus"] != "CREATE_COMPLETE"]
    check(not unfinished, f"not complete: {unfinished}")
    retention = {group["logGroupName"]: group.get("retentionInDays") for group in aws["logs"].describe_log_groups()["logGroups"]}
    for logical in [*FUNCTIONS, "Api"]:
        check(retention.get(names[f"{logical}Logs"]) == 30, f"the logs of {logical} are not kept for 30 days: {retention}")
    alarms = aws["cloudwatch"].describe_alarms()["MetricAlarms"]
    check(len(alarms) == 10, f"10 alarms were expected: {[alarm['AlarmName'] for alarm in alarms]}")
    step(f"the stack is complete: {len(resources)} resources")

    for logical, function in FUNCTIONS.items():
        role = names[f"{logical}Role"]
        granted = {
            statement["Resource"]
            for policy in aws["iam"].list_role_policies(RoleName=role)["PolicyNames"]
            for statement in aws["iam"].get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]["Statement"]
            if statement["Effect"] == "Allow"
        }
        expected = set(arns.values()) if function == "wpp-create" else {arns["supabase"]}
        check(granted == expected, f"{function} may read {granted}")
        variables = aws["lambda"].get_function_configuration(FunctionName=names[logical])["Environment"]["Variables"]
        for secret in [*Upstreams.accepted, *Upstreams.accepted.values()]:
            check(secret not in [*variables, *variables.values()], f"{function} has {secret} in its environment")
        # The upstreams of this script speak plain HTTP, and the emulator creates no API routes.
        variables |= {"WPP_BASE_URL": upstreams, "SUPABASE_URL": upstreams}
        aws["lambda"].update_function_configuration(FunctionName=names[logical], Environment={"Variables": variables})
        integration = aws["apigatewayv2"].create_integration(
            ApiId=names["Api"], IntegrationType="AWS_PROXY", PayloadFormatVersion="2.0",
            IntegrationUri=aws["lambda"].get_function_configuration(FunctionName=names[logical])["FunctionArn"])
        aws["apigatewayv2"].create_route(
            ApiId=names["Api"], RouteKey=f"ANY /functions/v1/{function}", Target=f"integrations/{integration['IntegrationId']}")
    step("each role reads its own secrets only, and no secret is in an environment")

    base = f"{endpoint}/_aws/execute-api/{names['Api']}/$default"
    for function in FUNCTIONS.values():
        status, headers, body = call(base, function)
        check(status == 401 and body["code"] == "unauthorized", f"{function} answers {status} {body}")
        check(body["request_id"] == headers["x-request-id"], f"{function} answers {body} with {dict(headers)}")
    step("a call without a token gets a 401 with code and request id from each function")

    token = user_token(secrets["supabase"]["SUPABASE_JWT_SECRET"])
    def codes():
        return {function: call(base, function, token)[2].get("code") for function in FUNCTIONS.values()}

    seen = codes()
    check(seen == EXPECTED_CODES, f"with the secrets that the ARNs name, {EXPECTED_CODES} were expected: {seen}")
    step("the functions read the secrets by ARN, and both upstreams accept them")

    rotated = {"WPP_SECRET": "platform-secret-2"}, {**secrets["supabase"], "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_smoke_2"}
    for arn, value in zip(arns.values(), rotated):
        aws["secretsmanager"].put_secret_value(SecretId=arn, SecretString=json.dumps(value))
        Upstreams.accepted = Upstreams.accepted | value
    started = time.monotonic()
    while (seen := codes()) != EXPECTED_CODES:
        check(time.monotonic() - started < ROTATION_TIMEOUT_S, f"after a rotation, {EXPECTED_CODES} were expected: {seen}")
        time.sleep(1)
    step(f"a rotation was seen without a deployment, after {time.monotonic() - started:.0f} s")

    version = os.environ.get("WPP_VERSION", "")
    lines = [
        event["message"]
        for logical in FUNCTIONS
        for event in aws["logs"].filter_log_events(logGroupName=names[f"{logical}Logs"])["events"]
    ]
    check(version and any(version in line for line in lines), f"no line of the log names the version {version!r}: {lines[-3:]}")
    check(not any(secret in line for line in lines for secret in Upstreams.accepted.values()), "a secret is in the log")
    for alarm in alarms:
        for dimension in alarm["Dimensions"] if alarm["Namespace"] == "WppFunctions" else []:
            field = f'"{dimension["Name"]}":"{dimension["Value"]}"'
            check(any(field in line for line in lines), f"{alarm['AlarmName']} waits for {field}: {lines[-3:]}")
    step(f"the log names the version {version}, the alarms' dimension, and no secret")


if __name__ == "__main__":
    main()
    step("not tested here: CORS of the API's own errors; check it as docs/operating.md says (\"The first time\")")
