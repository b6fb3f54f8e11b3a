"""What Airflow reads of this package. The list of connection types here is the registry of providers."""

from __future__ import annotations

from typing import Any


_HIDDEN = ["schema", "login"]
# Airflow 3.3's page sends a port of 0 where there is none, and does not test a saved connection whose port is
# another one.
_PORT = "0, so that Test works in Airflow 3.3"
_PRICES = {
    "prices": {
        "label": "Prices",
        "description": (
            'What operations cost: {"text_to_video": {"amount": "0.40", "unit": "USD"}}; "*" is '
            'every other operation; Kling\'s "units" and Runway\'s "credits" are one of them in money. For '
            "max_cost and costs in money."
        ),
        "schema": {"type": ["object", "null"]},
    }
}
_MATERIAL = {
    "material": {
        "label": "Own material",
        "description": (
            "How files of your own reach the provider, instead of in the usual order: those of url, inline "
            "and upload that it has, separated by commas."
        ),
        "schema": {"type": ["string", "null"]},
    }
}
_MODELS = {
    "models": {
        "label": "Models",
        "description": (
            'Which model an operation uses unless a task names one: {"text_to_image": "owner/name"}.'
        ),
        "schema": {"type": ["object", "null"]},
    }
}


def get_provider_info() -> dict[str, Any]:
    """The provider's entry for Airflow (schema: `provider_info.schema.json`); imports nothing."""
    return {
        "package-name": "airflow-media-tasks",
        "name": "Media Tasks",
        "description": "Generate images, video, music and sound, and pay for each of them once.",
        "integrations": [
            {
                "integration-name": "Media Tasks",
                "external-doc-url": "https://pypi.org/project/airflow-media-tasks/",
                "tags": ["service"],
            }
        ],
        "operators": [
            {"integration-name": "Media Tasks", "python-modules": ["airflow_media_tasks.operators"]}
        ],
        "sensors": [{"integration-name": "Media Tasks", "python-modules": ["airflow_media_tasks.sensors"]}],
        "triggers": [{"integration-name": "Media Tasks", "python-modules": ["airflow_media_tasks.triggers"]}],
        "hooks": [
            {
                "integration-name": "Media Tasks",
                "python-modules": [
                    "airflow_media_tasks.hooks.vap",
                    "airflow_media_tasks.hooks.acedata",
                    "airflow_media_tasks.hooks.kling",
                    "airflow_media_tasks.hooks.replicate",
                    "airflow_media_tasks.hooks.fal",
                    "airflow_media_tasks.hooks.runway",
                    "airflow_media_tasks.hooks.luma",
                    "airflow_media_tasks.hooks.comfyui",
                    "airflow_media_tasks.hooks.google_media",
                    "airflow_media_tasks.hooks.openai_media",
                ],
            }
        ],
        "cli": ["airflow_media_tasks.cli.get_cli_commands"],
        "config": {
            "media_tasks": {
                "description": (
                    "How media files are downloaded, from where, how large they may be, which files of your "
                    "own a provider may get, and from where the gallery sends files."
                ),
                "options": {
                    "allowed_hosts": {
                        "description": (
                            "Hosts that may be asked for files although their addresses are not public: host "
                            "names, addresses and CIDR ranges, separated by commas."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "cdn.internal, 10.2.0.0/16",
                        "default": "",
                    },
                    "proxy": {
                        "description": (
                            "HTTP proxy by which files are downloaded whose hosts are not known to be "
                            "private; it may have a user name and a password."
                        ),
                        "version_added": "0.2.0",
                        "type": "string",
                        "example": "http://proxy.internal:3128",
                        "default": "",
                        "sensitive": True,
                    },
                    "max_file_size": {
                        "description": "Bytes that one downloaded file may have.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "2147483648",
                    },
                    "decoder_memory": {
                        "description": (
                            "Bytes of memory that decoding one landed file may take. A worker needs as much "
                            "beside its own; a file that needs more lands, and is not checked."
                        ),
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "536870912",
                    },
                    "allowed_inputs": {
                        "description": (
                            "Places whose files may be handed to a provider: object storage paths, separated "
                            "by commas, each with the connection that it is to be read with. With none, "
                            "object stores without a connection, and what tasks of this package have landed."
                        ),
                        "version_added": "0.2.0",
                        "type": "string",
                        "example": "s3://products, s3://my_conn@films/in, file:///srv/media",
                        "default": "",
                    },
                    "gallery_roots": {
                        "description": (
                            "Places from which the API server sends landed files to the gallery: object "
                            "storage paths, separated by commas. A store is asked with the connection that "
                            "is named here. With none, no landed file is sent."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://my_conn@films/media, file:///srv/media",
                        "default": "",
                    },
                },
            }
        },
        "extra-links": [
            "airflow_media_tasks.links.MediaResultLink",
            "airflow_media_tasks.links.ProviderConsoleLink",
        ],
        "plugins": [
            {"name": "media_tasks", "plugin-class": "airflow_media_tasks.gallery.plugin.MediaTasksPlugin"},
        ],
        "connection-types": [
            {
                "connection-type": "vap",
                "hook-class-name": "airflow_media_tasks.hooks.vap.VapHook",
                "hook-name": "VAP",
                "ui-field-behaviour": {
                    "hidden-fields": _HIDDEN,
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {
                        "password": "vap_...",
                        "host": "https://api.vapagent.com",
                        "port": _PORT,
                    },
                },
                "conn-fields": _PRICES,
            },
            {
                "connection-type": "acedata",
                "hook-class-name": "airflow_media_tasks.hooks.acedata.AceDataHook",
                "hook-name": "AceData Cloud (Veo, Luma, ...)",
                "ui-field-behaviour": {
                    "hidden-fields": _HIDDEN,
                    "relabeling": {"password": "API token", "host": "Base URL"},
                    "placeholders": {
                        "password": "token of the service, or a global one",
                        "host": "https://api.acedata.cloud",
                        "port": _PORT,
                    },
                },
                "conn-fields": {
                    **_PRICES,
                    "service": {
                        "label": "Default service",
                        "description": "Completes a short name: text_to_video means veo/text_to_video.",
                        "schema": {"type": ["string", "null"], "default": "veo"},
                    },
                    "callback_url": {
                        "label": "Callback address",
                        "description": "Where AceData reports a finished task; nothing here needs it.",
                        "schema": {"type": ["string", "null"], "format": "url"},
                    },
                },
            },
            {
                "connection-type": "kling",
                "hook-class-name": "airflow_media_tasks.hooks.kling.KlingHook",
                "hook-name": "Kling",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {
                        "login": "Access key (older accounts)",
                        "password": "API key, or secret key",
                        "host": "Base URL",
                    },
                    "placeholders": {
                        "login": "leave empty with an API key",
                        "host": "https://api-singapore.klingai.com",
                        "port": _PORT,
                    },
                },
                "conn-fields": {**_PRICES, **_MATERIAL},
            },
            {
                "connection-type": "replicate",
                "hook-class-name": "airflow_media_tasks.hooks.replicate.ReplicateHook",
                "hook-name": "Replicate",
                "ui-field-behaviour": {
                    "hidden-fields": _HIDDEN,
                    "relabeling": {"password": "API token", "host": "Base URL"},
                    "placeholders": {
                        "password": "r8_...",
                        "host": "https://api.replicate.com",
                        "port": _PORT,
                    },
                },
                "conn-fields": {**_PRICES, **_MODELS, **_MATERIAL},
            },
            {
                "connection-type": "fal",
                "hook-class-name": "airflow_media_tasks.hooks.fal.FalHook",
                "hook-name": "fal",
                "ui-field-behaviour": {
                    "hidden-fields": _HIDDEN,
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {
                        "password": "key id:key secret",
                        "host": "https://queue.fal.run",
                        "port": _PORT,
                    },
                },
                "conn-fields": {**_PRICES, **_MODELS, **_MATERIAL},
            },
            {
                "connection-type": "runway",
                "hook-class-name": "airflow_media_tasks.hooks.runway.RunwayHook",
                "hook-name": "Runway",
                "ui-field-behaviour": {
                    "hidden-fields": _HIDDEN,
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {
                        "password": "key_...",
                        "host": "https://api.dev.runwayml.com",
                        "port": _PORT,
                    },
                },
                "conn-fields": {**_PRICES, **_MODELS},
            },
            {
                "connection-type": "luma",
                "hook-class-name": "airflow_media_tasks.hooks.luma.LumaHook",
                "hook-name": "Luma (Dream Machine, Agents)",
                "ui-field-behaviour": {
                    "hidden-fields": _HIDDEN,
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {
                        "password": "luma-...",
                        "host": "https://api.lumalabs.ai/dream-machine/v1",
                        "port": _PORT,
                    },
                },
                "conn-fields": {
                    **_PRICES,
                    **_MODELS,
                    "api": {
                        "label": "API",
                        "description": (
                            "Whose key this is. With agents, text_to_video means agents/text_to_video."
                        ),
                        "schema": {"type": ["string", "null"], "default": "dream-machine"},
                    },
                    "callback_url": {
                        "label": "Callback address",
                        "description": "Where Dream Machine reports a generation; nothing here needs it.",
                        "schema": {"type": ["string", "null"], "format": "url"},
                    },
                },
            },
            {
                "connection-type": "comfyui",
                "hook-class-name": "airflow_media_tasks.hooks.comfyui.ComfyUIHook",
                "hook-name": "ComfyUI (your own server)",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {
                        "login": "User (of a proxy)",
                        "password": "Token or password (of a proxy)",
                        "host": "Base URL",
                    },
                    "placeholders": {
                        "login": "leave empty without a proxy",
                        "password": "leave empty without a proxy",
                        "host": "http://127.0.0.1:8188",
                        "port": _PORT,
                    },
                },
                "conn-fields": {**_PRICES, **_MODELS},
            },
            {
                "connection-type": "google_media",
                "hook-class-name": "airflow_media_tasks.hooks.google_media.GoogleMediaHook",
                "hook-name": "Google (Veo)",
                "ui-field-behaviour": {
                    "hidden-fields": _HIDDEN,
                    "relabeling": {"password": "API key, or access token", "host": "Base URL"},
                    "placeholders": {
                        "password": "leave empty with a Google Cloud connection",
                        "host": "https://generativelanguage.googleapis.com",
                        "port": _PORT,
                    },
                },
                "conn-fields": {
                    **_PRICES,
                    **_MODELS,
                    "vertex": {
                        "label": "Vertex",
                        "description": "Veo by Vertex, instead of by the Gemini API with a key.",
                        "schema": {"type": ["boolean", "null"]},
                    },
                    "project": {
                        "label": "Project",
                        "description": "Of Vertex: the Google Cloud project's id.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "location": {
                        "label": "Location",
                        "description": "Of Vertex: us-central1, for example, or global.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "google_cloud_conn_id": {
                        "label": "Google Cloud connection",
                        "description": "Of Vertex: whose access token is shown, in place of the password.",
                        "schema": {"type": ["string", "null"]},
                    },
                },
            },
            {
                "connection-type": "openai_media",
                "hook-class-name": "airflow_media_tasks.hooks.openai_media.OpenAIMediaHook",
                "hook-name": "OpenAI-shaped videos (/v1/videos)",
                "ui-field-behaviour": {
                    "hidden-fields": _HIDDEN,
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {
                        "password": "leave empty if your server asks for none",
                        "host": "https://api.openai.com/v1",
                        "port": _PORT,
                    },
                },
                "conn-fields": {
                    **_PRICES,
                    **_MODELS,
                    "json": {
                        "label": "JSON",
                        "description": "Submit as JSON, for servers that take no form.",
                        "schema": {"type": ["boolean", "null"], "default": False},
                    },
                },
            },
        ],
    }
