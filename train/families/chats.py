"""Chat templates of the tiny bundles, and conversations as reference code that somebody else wrote tokenises them.

A template is Hugging Face's where the family has one (modelrt/chat/testdata/templates); else templates/NAME.jinja says what the prompt function of
the family's reference code amounts to, and that function is run here beside it. Golden file: NAME.chat.json beside the bundle, tokens of each
conversation, or null where the reference cannot hold it. What a reference has no say in stands in ``ours``."""

from __future__ import annotations

import ast
import base64
import gzip
import hashlib
import json
import os
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

HUGGING = Path("modelrt/chat/testdata/templates")
OURS = Path("train/families/templates")
QUESTION, ANSWER = "Is the heart enlarged?", "The heart is enlarged. There is a small pleural effusion."
ODD = " Größe?\n\n肺 🫁  1. left; 2. right\t(µm) "

# Parts that are numbers are pictures.
CONVERSATIONS = {
    "one": [("user", [0, QUESTION])],
    "two turns": [("user", [0, QUESTION]), ("assistant", [ANSWER]), ("user", ["Since when?"])],
    "three turns": [("user", [0, QUESTION]), ("assistant", ["Yes."]), ("user", ["On which side?"]), ("assistant", [ANSWER]), ("user", ["Sure?"])],
    "system": [("system", ["You are careful."]), ("user", [0, QUESTION]), ("assistant", ["No."]), ("user", ["Sure?"])],
    "two images": [("user", [0, 1, "What has changed?"])],
    "another image": [("user", [0, QUESTION]), ("assistant", ["No."]), ("user", [1, "And here?"]), ("assistant", ["Yes."]), ("user", ["Sure?"])],
    "image between": [("user", ["Look at this: ", 0, " Is it normal?"])],
    "image last": [("user", ["What is this?", 0])],
    "late image": [("user", ["Can you read films?"]), ("assistant", ["Yes."]), ("user", [0, QUESTION])],
    "odd text": [("user", [0, "x" + ODD]), ("assistant", [ODD]), ("user", ["a\\n" + ODD + "b"])],
    "twice the user": [("user", [0, QUESTION]), ("user", ["Sure?"])],
}


@dataclass
class Chat:
    template: Path
    oracle: object
    reference: str
    prompt: dict = field(default_factory=dict)
    instruction: str = "Describe the findings."
    length: int = 256     # of the context
    begins: str = ""      # a token that the tokenizer file puts before a text
    pictured: bool = True  # a conversation has a picture
    ours: tuple = ()      # conversations whose form the reference does not know


def hugged(messages, pictures):
    """Messages as transformers' processors take them."""
    return [{"role": role, "content": [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": pictures[p]} for p in parts]}
            for role, parts in messages]


def processed(processor):
    def ids(messages, pictures):
        made = processor.apply_chat_template(hugged(messages, pictures), add_generation_prompt=True, tokenize=True, return_dict=True)
        return np.asarray(made["input_ids"]).reshape(-1).tolist()
    return ids


def turns(messages):
    """Questions and answers in pairs, for references that know no others."""
    if messages[0][0] != "user" or any(role != ("user", "assistant")[i % 2] for i, (role, _) in enumerate(messages)):
        raise ValueError("no pairs of question and answer")
    return messages


def taken(reference: str, file: str, digest: str, names: list[str], given: dict) -> dict:
    """Definitions out of a reference's file, whose imports are not wanted."""
    path = Path(os.environ.get("CHATXRAY_REFERENCES", "references")) / reference / file
    source = path.read_bytes()
    if hashlib.sha256(source).hexdigest() != digest:
        raise ValueError(f"{path} is another version: {hashlib.sha256(source).hexdigest()}")
    found = [n for n in ast.walk(ast.parse(source)) if getattr(n, "name", None) in names
             or isinstance(n, ast.Assign) and getattr(n.targets[0], "id", None) in names]
    scope = dict(given)
    for node in sorted(found, key=lambda n: n.lineno):
        exec(compile(ast.Module([node], []), str(path), "exec"), scope)
    return scope


def only_image(messages, first: bool = False):
    """The number of the one picture; first: it must be in the first message."""
    where = [(i, p) for i, (_, parts) in enumerate(messages) for p in parts if isinstance(p, int)]
    if len(where) != 1 or first and where[0][0] != 0:
        raise ValueError("the reference knows one picture")
    return where[0][1]


def words(parts) -> str:
    return "\n".join(p for p in parts if isinstance(p, str))


def llava(tok, folder):
    from transformers import CLIPImageProcessor, LlavaProcessor

    from . import tiny
    fast = tiny.fast(tok, bos_token="<s>")
    return processed(LlavaProcessor(image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer=fast,
                                    patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1, image_token="<image>",
                                    chat_template=(HUGGING / "images_first.jinja").read_text()))


def qwen2vl(tok, folder):
    from transformers import Qwen2TokenizerFast, Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    from . import tiny
    images = Qwen2VLImageProcessor(patch_size=4, merge_size=2, temporal_patch_size=2, min_pixels=32 * 32, max_pixels=64 * 64)
    return processed(Qwen2VLProcessor(image_processor=images, tokenizer=tiny.fast(tok, Qwen2TokenizerFast), video_processor=Qwen2VLVideoProcessor(),
                                      chat_template=(HUGGING / "vision_start.jinja").read_text()))


def gemma3(tok, folder):
    from transformers import Gemma3ImageProcessor, Gemma3Processor, GemmaTokenizerFast

    from . import tiny
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    fast = tiny.fast(tok, GemmaTokenizerFast, extra_special_tokens=named, add_bos_token=True)
    tokens = json.loads((folder / "manifest.json").read_text())["vision"]["image_tokens"]
    return processed(Gemma3Processor(image_processor=Gemma3ImageProcessor(size={"height": 32, "width": 32}), tokenizer=fast, image_seq_length=tokens,
                                     chat_template=(HUGGING / "turns.jinja").read_text()))


def llama(tok, folder):
    from . import tiny
    fast = tiny.fast(tok, bos_token="<s>", eos_token="</s>", chat_template=(HUGGING / "inst.jinja").read_text())
    return lambda messages, pictures: fast.apply_chat_template([{"role": role, "content": words(parts)} for role, parts in messages],
                                                               add_generation_prompt=True, tokenize=True)


def fuyu(tok, folder):
    from transformers import FuyuImageProcessor, FuyuProcessor

    from . import tiny
    from .fuyu import Pieces
    shape = json.loads((folder / "manifest.json").read_text())["preprocess"]
    images = FuyuImageProcessor(size={"height": shape["height"], "width": shape["width"]}, patch_size={"height": shape["patch"], "width": shape["patch"]})
    processor = FuyuProcessor(image_processor=images, tokenizer=tiny.fast(tok, Pieces))

    def ids(messages, pictures):
        at = only_image(turns(messages))
        text = "".join(words(parts) + "\n" + ("<0x04>" if role == "user" and i + 1 < len(messages) else "") for i, (role, parts) in enumerate(messages))
        return processor(images=[pictures[at]], text=text)["input_ids"][0].tolist()
    return ids


def blip2(tok, folder):
    from transformers import Blip2Processor, BlipImageProcessor

    from . import tiny
    processor = Blip2Processor(BlipImageProcessor(size={"height": 32, "width": 32}), tiny.fast(tok), num_query_tokens=8)

    def ids(messages, pictures):
        at = only_image(turns(messages))
        said = [words(parts) for _, parts in messages]
        context = [(said[i], said[i + 1]) for i in range(0, len(said) - 1, 2)]
        template = "Question: {} Answer: {}."
        prompt = " ".join([template.format(*pair) for pair in context] + ["Question: " + said[-1] + " Answer:"])
        return np.asarray(processor(images=pictures[at], text="</s>" + prompt)["input_ids"]).reshape(-1).tolist()
    return ids


def minigpt4(tok, folder):
    import dataclasses
    from enum import Enum, auto
    from typing import Any, List

    import torch
    known = {"dataclasses": dataclasses, "Enum": Enum, "auto": auto, "List": List, "Any": Any}
    talk = taken("minigpt4", "conversation.py", "67e0e32e5933f02eaba7915e4216ee2b049765e3d1ceba6c66e545f1bc2c330d", ["SeparatorStyle", "Conversation", "CONV_VISION_Vicuna0"], known)
    base = taken("minigpt4", "minigpt_base.py", "b34757bfe35eac1e1e0d0273a8ede4301b2b057334d2ff00e506436ffbf0013a", ["get_context_emb"], {"torch": torch})
    asks = taken("minigpt4", "conversation.py", "67e0e32e5933f02eaba7915e4216ee2b049765e3d1ceba6c66e545f1bc2c330d", ["ask"], {})["ask"]

    class Words:  # what a text is, instead of its embeddings
        def __call__(self, text, return_tensors, add_special_tokens):
            found = tok.encode(text).ids
            return types.SimpleNamespace(to=lambda device: types.SimpleNamespace(input_ids=torch.tensor([[tok.token_to_id("<s>")] * add_special_tokens + found])))

    model = types.SimpleNamespace(llama_tokenizer=Words(), embed_tokens=lambda ids: ids)

    def ids(messages, pictures):
        conv = talk["CONV_VISION_Vicuna0"].copy()
        if messages[0][0] == "system":
            conv.system, messages = words(messages[0][1]), messages[1:]
        only_image(messages)
        for role, parts in messages:
            if role == "assistant":
                conv.append_message(conv.roles[1], words(parts))
                continue
            for i, p in enumerate(parts):
                if isinstance(p, int):
                    if i > 0:
                        raise ValueError("the reference knows a picture before its question")
                    conv.append_message(conv.roles[0], "<Img><ImageHere></Img>")
                else:
                    asks(None, p, conv)
        conv.append_message(conv.roles[1], None)
        return base["get_context_emb"](model, conv.get_prompt(), [torch.full((1, 8), tok.token_to_id("<image>"))])[0].tolist()
    return ids


def yivl(tok, folder):
    import dataclasses
    from enum import Enum, auto
    from typing import List
    known = {"dataclasses": dataclasses, "Enum": Enum, "auto": auto, "List": List}
    talk = taken("yi", "conversation.py", "fce2b0c7c9a48a4c1fb2e4d547706dbe896a35cc18d57dc33fb5fd4e5991df58", ["SeparatorStyle", "Conversation", "mm_default_conv"], known)
    cut = taken("yi", "mm_utils.py", "6d750a31fcadc739923a501ef10e1cc3c5869fd84fdc4e47b267a9efb0a18765", ["tokenizer_image_token"], {"IMAGE_TOKEN_INDEX": -200})["tokenizer_image_token"]

    class Words:
        bos_token_id = None

        def __call__(self, text):
            return types.SimpleNamespace(input_ids=tok.encode(text).ids)

    def ids(messages, pictures):
        conv = talk["mm_default_conv"].copy()
        if messages[0][0] == "system":
            conv.system, messages = words(messages[0][1]), messages[1:]
        only_image(messages, first=True)
        for i, (role, parts) in enumerate(messages):
            conv.append_message(conv.roles[role == "assistant"], (words(parts), None, None) if i == 0 else words(parts))
        conv.append_message(conv.roles[1], None)
        made = []
        for i in cut(conv.get_prompt(), Words()):
            made += [tok.token_to_id("<image_placeholder>")] * 16 if i == -200 else [i]
        return made
    return ids


def qwenvl(tok, folder):
    from typing import List, Tuple
    make = taken("qwenvl", "qwen_generation_utils.py", "7add81d401ac8083d44c3738e5ee18d1d9eefecdc844ec71a1b3f0a0446a68dd", ["make_context"],
                 {"List": List, "Tuple": Tuple, "PreTrainedTokenizer": object})["make_context"]
    known = types.SimpleNamespace(im_start_id=tok.token_to_id("<|im_start|>"), im_end_id=tok.token_to_id("<|im_end|>"), IMAGE_ST=(),
                                  encode=lambda text, allowed_special=None: tok.encode(text).ids)

    def ids(messages, pictures):
        system = "You are a helpful assistant."  # as QWenLMHeadModel.chat has it
        if messages[0][0] == "system":
            system, messages = words(messages[0][1]), messages[1:]
        said, number = [], 1
        for role, parts in turns(messages):
            text = ""
            for p in parts:  # as predict of web_demo_mm.py does
                if isinstance(p, int):
                    text += f"Picture {number}: <img>{'<imgpad>' * 16}</img>\n"
                    number += 1
                else:
                    text += p
            said.append(text)
        history = [(said[i], said[i + 1]) for i in range(0, len(said) - 1, 2)]
        return make(known, said[-1], history, system)[1]
    return ids


def chatglm(tok, folder):
    import re
    from typing import List, Tuple

    import torch
    made = taken("chatglm", "modeling_chatglm.py", "da5bd3b100fb1e4a42661201bfe10357aa0f9a6c5ca85873f1c41364ac4b0b07",
                 ["build_inputs_with_image", "process_image"], {"torch": torch, "re": re, "List": List, "Tuple": Tuple})
    mask, start, unknown = (tok.token_to_id(t) for t in ("[gMASK]", "<sop>", "<unk>"))
    known = types.SimpleNamespace(encode=lambda text, add_special_tokens: tok.encode(text).ids, unk_token_id=unknown,
                                  build_inputs_with_special_tokens=lambda ids: ids + [mask, start])
    model = types.SimpleNamespace(image_length=32, dtype=torch.float32, device="cpu", process_image=lambda text: (
        text.replace("<img>x</img>", "<img></img>"), text.rfind("<img>") + 5, torch.zeros(1)))  # the file's own opens the picture

    def ids(messages, pictures):
        only_image(turns(messages))
        said = [words(parts) for _, parts in messages]
        history = [(said[i], said[i + 1]) for i in range(0, len(said) - 1, 2)]
        return made["build_inputs_with_image"](model, known, "x", said[-1], history)["input_ids"][0].tolist()
    return ids


CHATS = {
    "llava": Chat(HUGGING / "images_first.jinja", llava, "transformers 4.57.1 LlavaProcessor.apply_chat_template", begins="<s>",
                  prompt={"bos_token": "<s>", "images": 4, "splice": "overwrite_pads"}),
    "yivl": Chat(OURS / "yivl.jinja", yivl, "01-ai/Yi f73194cc: Conversation.get_prompt, tokenizer_image_token", length=1024),
    "minigpt4": Chat(OURS / "minigpt4.jinja", minigpt4, "Vision-CAIR/MiniGPT-4 d94738a: Conversation.get_prompt, Chat.ask, get_context_emb", prompt={"bos_token": "<s>"}, length=512,
                     ours=("image between", "image last")),
    "qwenvl": Chat(OURS / "qwenvl.jinja", qwenvl, "qwen_generation_utils.py of Qwen-VL-Chat: make_context", prompt={"images": 4}, instruction="Describe it."),
    "qwen2vl": Chat(HUGGING / "vision_start.jinja", qwen2vl, "transformers 4.57.1 Qwen2VLProcessor.apply_chat_template", prompt={"images": 4}, length=512),
    "qwen25vl": Chat(HUGGING / "vision_start.jinja", qwen2vl, "transformers 4.57.1 Qwen2VLProcessor.apply_chat_template", prompt={"images": 4}, length=512),
    "gemma3": Chat(HUGGING / "turns.jinja", gemma3, "transformers 4.57.1 Gemma3Processor.apply_chat_template", prompt={"bos_token": "<bos>", "images": 4}),
    "fuyu": Chat(OURS / "fuyu.jinja", fuyu, "transformers 4.57.1 FuyuProcessor", prompt={"bos_token": "<s>"},
                 ours=("two turns", "three turns", "late image", "odd text")),
    "blip2": Chat(OURS / "blip2.jinja", blip2, "salesforce/LAVIS 506965b: blip2_instructed_generation.ipynb; transformers 4.57.1 Blip2Processor",
                  prompt={"bos_token": "</s>"}),
    "chatglm": Chat(OURS / "chatglm.jinja", chatglm, "modeling_chatglm.py of visualglm-6b: build_inputs_with_image", prompt={"splice": "replace_sentinel"}),
    "llama": Chat(HUGGING / "inst.jinja", llama, "transformers 4.57.1 PreTrainedTokenizerFast.apply_chat_template",
                  prompt={"bos_token": "<s>", "eos_token": "</s>"}, pictured=False),
}


def dress(folder: Path, chat: Chat) -> None:
    """Puts the template into a bundle and says in its manifest how it is used."""
    (folder / "chat_template.jinja").write_text(chat.template.read_text())
    if chat.begins:
        path = folder / "tokenizer.json"
        tok = json.loads(path.read_text())
        id, = (t["id"] for t in tok["added_tokens"] if t["content"] == chat.begins)
        tok["post_processor"] = {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": chat.begins, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {chat.begins: {"id": chat.begins, "ids": [id], "tokens": [chat.begins]}}}
        path.write_text(json.dumps(tok, indent=2, ensure_ascii=False))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["decoder"]["max_length"] = chat.length
    manifest["prompt"].pop("template", None)
    manifest["prompt"] |= {"chat_template": "chat_template.jinja", "instruction": chat.instruction, **chat.prompt}
    manifest["files"] = {p.name: {"sha256": hashlib.sha256(p.read_bytes()).hexdigest(), "bytes": p.stat().st_size}
                         for p in sorted(folder.iterdir()) if p.name != "manifest.json"}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def make(target: Path, name: str) -> None:
    chat, folder = CHATS[name], target / name
    dress(folder, chat)
    golden = json.loads(gzip.decompress((target / f"{name}.json.gz").read_bytes()))
    pictures = []
    for entry in golden["images"][:2] if chat.pictured else []:
        p = entry["pictures"][0]
        pictures.append(Image.fromarray(np.frombuffer(base64.b64decode(p["gray"]), np.uint8).reshape(p["rows"], p["columns"])).convert("RGB"))
    ids = chat.oracle(Tokenizer.from_file(str(folder / "tokenizer.json")), folder)
    found = []
    for title, messages in CONVERSATIONS.items():
        if not chat.pictured:
            messages = [(role, [p for p in parts if isinstance(p, str)]) for role, parts in messages]
        entry = {"title": title, "messages": [{"role": role, "parts": parts} for role, parts in messages], "ours": title in chat.ours}
        try:
            entry["ids"] = [int(i) for i in ids(messages, pictures)]
        except Exception as why:
            print(f"  {name}: {title}: {type(why).__name__}: {why}")
        found.append(entry)
    (target / f"{name}.chat.json").write_text(json.dumps({"reference": chat.reference, "conversations": found}, ensure_ascii=False) + "\n")
    print(f"{name}: {sum('ids' in e for e in found)} of {len(found)} conversations")
