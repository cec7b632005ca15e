"""The text encoder and the UNet, as training sees them: SD 1.x's layers with a vocabulary of the words in use."""
import functools
import os

import diffusers
import torch
import transformers

import captions
import places

BOS, EOS, LENGTH = 49406, 49407, 77


class Words:
    """CLIP's tokens that captions use, numbered from 0; after them one row for all others, and the two marks."""

    def __init__(self, model, emoji):
        places.needs(os.path.join(model, "model_index.json"), "give the folder of a model")
        self.tokenizer = transformers.CLIPTokenizer.from_pretrained(model, subfolder="tokenizer")
        found = {t for phrase in captions.phrases(emoji) for t in self.tokenizer(phrase).input_ids}
        self.used = sorted(found - {BOS, EOS})
        self.unknown = len(self.used)
        self.row = {token: row for row, token in enumerate(self.used)}
        self.row.update({BOS: self.unknown + 1, EOS: self.unknown + 2})
        self.size = self.unknown + 3
        self.rows = functools.lru_cache(maxsize=50000)(self._rows)

    def _rows(self, text):
        """Int64 [77], filled up with the end mark."""
        tokens = self.tokenizer(text, truncation=True, max_length=LENGTH).input_ids
        rows = [self.row.get(token, self.unknown) for token in tokens]
        return torch.tensor(rows + [self.row[EOS]] * (LENGTH - len(rows)))

    def full(self, table):
        """An embedding of all of CLIP's tokens from the compact one."""
        whole = table[self.unknown].repeat(EOS + 1, 1)
        whole[self.used] = table[:self.unknown]
        whole[BOS], whole[EOS] = table[self.unknown + 1], table[self.unknown + 2]
        return whole


class Attention:
    """Attention by products of matrices in the autocast's type. torch's own is many times slower backwards in
    bfloat16 on CPUs."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        batch, length, width = hidden_states.shape
        size = width // attn.heads

        def heads(x):
            return x.view(batch, -1, attn.heads, size).transpose(1, 2).reshape(batch * attn.heads, -1, size)

        q, k, v = heads(attn.to_q(hidden_states)), heads(attn.to_k(context)), heads(attn.to_v(context))
        scores = torch.bmm(q * size ** -0.5, k.transpose(1, 2))
        out = torch.bmm(torch.softmax(scores, -1, dtype=scores.dtype), v)
        out = out.view(batch, attn.heads, length, size).transpose(1, 2).reshape(batch, length, width)
        return attn.to_out[0](out)


class Network(torch.nn.Module):
    """Predicts the noise of latents from captions. `bfloat16` says whether the UNet's products use it."""

    def __init__(self, model, words, bfloat16):
        super().__init__()
        self.unet = diffusers.UNet2DConditionModel.from_pretrained(model, subfolder="unet", torch_dtype=torch.float32)
        self.unet.set_attn_processor(Attention())
        self.text = transformers.CLIPTextModel.from_pretrained(model, subfolder="text_encoder",
                                                               torch_dtype=torch.float32)
        old = self.text.get_input_embeddings().weight.data
        table = torch.nn.Embedding(words.size, old.size(1))
        rest = BOS - 1  # the last byte pair, which no caption has: its row is that of all unknown words
        rows = torch.tensor([*words.used, rest, BOS, EOS])
        table.weight.data = old[rows].clone()
        # Words that the model did not know share one row so far: set them apart.
        fresh = (table.weight.data == old[rest]).all(1)
        fresh[words.unknown] = False
        table.weight.data[fresh] += 0.02 * torch.randn(table.weight[fresh].shape,
                                                       generator=torch.Generator().manual_seed(0))
        self.text.set_input_embeddings(table)
        self.cast = bfloat16

    def forward(self, latents, timesteps, rows):
        """Float32 [B, 4, 16, 16] of noisy latents, int64 [B] and int64 [B, 77]: the noise, float32."""
        context = self.text(rows).last_hidden_state
        with torch.autocast("cpu", torch.bfloat16, enabled=self.cast):
            return self.unet(latents, timesteps, context).sample.float()
