"""Runs the example of docs/destinations.md over an event as it was sent, and over changed ones. A line of JSON for each.

Standard input: a JSON object with the example, the secret, the event's headers and its body in base64.
"""

import base64
import json
import sys
from types import SimpleNamespace

from standardwebhooks import WebhookVerificationError

given = json.load(sys.stdin)
body = base64.b64decode(given["body"])


def verified(body=body, secret=given["secret"], **changed):
    """What the example makes of an event; None where the library refuses it."""
    headers = given["headers"] | {name.replace("_", "-").title(): value for name, value in changed.items()}
    names = {"secret": secret, "request": SimpleNamespace(body=body, headers=headers)}
    try:
        exec(given["example"], names)
    except WebhookVerificationError:
        return None
    return names["event"]


def operation(name, ok):
    print(json.dumps({"operation": name, "error": "" if ok else "not so"}))


def other(text):
    """text with its last letter changed."""
    return text[:-1] + ("0" if text[-1] != "0" else "1")


headers = given["headers"]
operation("verify", verified() == json.loads(body))
i = body.index(b"2.25.")
operation("refuse another byte", verified(body[:i] + b"3" + body[i + 1 :]) is None)
operation("refuse another id", verified(webhook_id=other(headers["Webhook-Id"])) is None)
operation("refuse another time", verified(webhook_timestamp=str(int(headers["Webhook-Timestamp"]) + 1)) is None)
signature = bytearray(base64.b64decode(headers["Webhook-Signature"].removeprefix("v1,")))
signature[0] ^= 1
operation("refuse another signature", verified(webhook_signature="v1," + base64.b64encode(signature).decode()) is None)
operation("refuse another secret", verified(secret="whsec_" + base64.b64encode(b"x" * 32).decode()) is None)
