"""Serve an S3 with a bucket of made-up product pictures on this machine: `python scripts/bucket.py PORT`.

The bucket is called `products`; `pictures/<sku>.png` is a picture for each row of the example table. Any key
may read it. It needs moto, which the extra `dev` brings.
"""

from __future__ import annotations

import csv
import io
import signal
import sys
import threading
from pathlib import Path

from PIL import Image, ImageDraw


BUCKET = "products"
FOLDER = "pictures"
TABLE = Path(__file__).resolve().parent.parent / "example_dags" / "products.csv"
KEYS = {
    "AWS_ACCESS_KEY_ID": "a-key-for-moto",
    "AWS_SECRET_ACCESS_KEY": "any-secret-for-moto",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_SIDE = 480


def settings(url: str) -> dict[str, str]:
    """What lets a worker read the bucket with its own credentials, and the example DAG find it."""
    return {**KEYS, "AWS_ENDPOINT_URL": url, "MEDIA_INPUT": f"s3://{BUCKET}/{FOLDER}"}


def picture(name: str, number: int) -> bytes:
    """A product, as far as a disc with its name is one."""
    image = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(image)
    color = ((number * 70) % 200, (number * 130) % 200, (number * 190) % 200)
    draw.ellipse((90, 60, 390, 360), fill=color)
    draw.text((_SIDE // 2, 420), name, fill="black", anchor="mm")
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def main() -> None:
    """Serve until somebody ends it."""
    import boto3  # noqa: PLC0415  # the demo, which reads this module, needs neither
    from moto.server import ThreadedMotoServer  # noqa: PLC0415  # as above

    server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False)
    server.start()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{sys.argv[1]}",
        region_name=KEYS["AWS_DEFAULT_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)
    with TABLE.open(newline="") as table:
        for number, row in enumerate(csv.DictReader(table)):
            body = picture(row["name"], number)
            client.put_object(Bucket=BUCKET, Key=f"{FOLDER}/{row['sku']}.png", Body=body)
    # The last, and the only one that is told without a key.
    client.put_object(Bucket=BUCKET, Key="ready", Body=b"", ACL="public-read")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    server.stop()


if __name__ == "__main__":
    main()
