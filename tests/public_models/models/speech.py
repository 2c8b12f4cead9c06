"""Speech: recognition, synthesis, speakers, language models of recognisers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..model import Model
from ..packages import Package
from .draws import lengths, padding, tokens, unsorted_lengths

RESEMBLYZER = Package("resemblyzer", "0.1.4", bare=("resemblyzer",), stubs=("resemblyzer.audio",))
KOKORO = Package("kokoro", "0.9.4", bare=("kokoro",), stubs=("attr", "transformers"))
TORCHAUDIO = Package("torchaudio", "2.11.1", bare=("torchaudio", "torchaudio.models"))
NEMO = Package(
    "nemo_toolkit",
    "3.0.0",
    bare=("nemo", "nemo.collections", "nemo.collections.common", "nemo.collections.common.parts"),
    stubs=("nemo.utils",),
)
ESPNET = Package(
    "espnet",
    "202511",
    needs=("typeguard==4.4.4", "torch-complex==0.4.4"),
    stubs=("librosa",),
)
SPEECHBRAIN = Package(
    "speechbrain",
    "1.1.2",
    needs=("tqdm==4.67.1",),
    bare=("speechbrain", "speechbrain.utils"),
    stubs=("hyperpyyaml", "torchaudio", "sentencepiece", "joblib"),
)
S3PRL = Package("s3prl", "0.4.18", bare=("s3prl", "s3prl.nn", "s3prl.upstream", "s3prl.upstream.apc"))
COQUI = Package(
    "coqui-tts",
    "0.28.0",
    bare=("TTS", "TTS.tts", "TTS.tts.layers", "TTS.tts.layers.tacotron"),
    stubs=("coqpit", "scipy", "torchaudio", "trainer", "TTS.utils"),
)
WAVENCODER = Package("wavencoder", "0.1.3", bare=("wavencoder", "wavencoder.models"))
FUNASR = Package(
    "funasr",
    "1.4.16",
    bare=("funasr", "funasr.models", "funasr.models.transducer"),
    stubs=("funasr.models.specaug", "funasr.models.transducer.beam_search_transducer"),
)
STYLETTS = Package("styletts2", "0.1.6", bare=("styletts2", "styletts2.Utils", "styletts2.Utils.JDC"))
NISQA = Package("nisqa", "2.0.post2", bare=("nisqa",), stubs=("librosa", "pandas", "tqdm", "scipy"))


def resemblyzer() -> nn.Module:
    from resemblyzer.voice_encoder import VoiceEncoder

    return VoiceEncoder("cpu", verbose=False)


def kokoro(name: str, *arguments: Any) -> nn.Module:
    from kokoro import modules

    return getattr(modules, name)(*arguments)


def kokoro_text(batch: int, time: int) -> tuple[Any, ...]:
    ends = unsorted_lengths(batch, time)
    return tokens(batch, time, 20), ends, padding(ends, time)


def kokoro_duration(batch: int, time: int) -> tuple[Any, ...]:
    ends = unsorted_lengths(batch, time)
    return torch.randn(batch, 16, time), torch.randn(batch, 8), ends, padding(ends, time)


def kokoro_prosody(batch: int, time: int) -> tuple[Any, ...]:
    ends = unsorted_lengths(batch, time)
    return torch.randn(batch, 16, time), torch.randn(batch, 8), ends, torch.rand(batch, time, 10), padding(ends, time)


def tacotron_encoder() -> nn.Module:
    from torchaudio.models.tacotron2 import _Encoder

    return _Encoder(encoder_embedding_dim=32, encoder_n_convolution=2, encoder_kernel_size=5)


def tacotron_decoder() -> nn.Module:
    from torchaudio.models.tacotron2 import _Decoder

    return _Decoder(
        n_mels=8,
        n_frames_per_step=1,
        encoder_embedding_dim=16,
        decoder_rnn_dim=16,
        decoder_max_step=50,
        decoder_dropout=0.1,
        decoder_early_stopping=True,
        attention_rnn_dim=16,
        attention_hidden_dim=8,
        attention_location_n_filter=4,
        attention_location_kernel_size=5,
        attention_dropout=0.1,
        prenet_dim=8,
        gate_threshold=0.5,
    )


def deep_speech() -> nn.Module:
    from torchaudio.models.deepspeech import DeepSpeech

    return DeepSpeech(n_feature=20, n_hidden=32, n_class=10)


def wave_rnn() -> nn.Module:
    from torchaudio.models.wavernn import WaveRNN

    return WaveRNN(
        [2, 2], n_classes=16, hop_length=4, n_res_block=2, n_rnn=16, n_fc=16, n_freq=8, n_hidden=8, n_output=8
    )


def nemo_rnn(norm: str | None) -> nn.Module:
    from nemo.collections.common.parts.rnn import rnn

    return rnn(
        input_size=12,
        hidden_size=16,
        num_layers=2,
        norm=norm,
        forget_gate_bias=1.0,
        dropout=0.1,
        norm_first_rnn=False,
        t_max=None,
        weights_init_scale=1.0,
        hidden_hidden_bias_scale=0.0,
        proj_size=0,
    )


def espnet_encoder(**options: Any) -> nn.Module:
    from espnet2.asr.encoder.rnn_encoder import RNNEncoder

    return RNNEncoder(12, num_layers=2, hidden_size=16, output_size=10, **options)


def espnet_vgg() -> nn.Module:
    from espnet2.asr.encoder.vgg_rnn_encoder import VGGRNNEncoder

    return VGGRNNEncoder(8, num_layers=1, hidden_size=16, output_size=10)


def espnet_separator() -> nn.Module:
    from espnet2.enh.separator.rnn_separator import RNNSeparator

    return RNNSeparator(12, layer=2, unit=16)


def espnet_skim() -> nn.Module:
    from espnet2.enh.layers.skim import SkiM

    return SkiM(12, 16, 12, segment_size=4)


def espnet_lm() -> nn.Module:
    from espnet2.lm.seq_rnn_lm import SequentialRNNLM

    return SequentialRNNLM(20, unit=16)


def speechbrain(name: str, *arguments: Any, **options: Any) -> nn.Module:
    from speechbrain.nnet import RNN

    return getattr(RNN, name)(*arguments, **options)


def s3prl_encoder() -> nn.Module:
    from s3prl.nn.rnn import RNNEncoder

    return RNNEncoder(
        12,
        8,
        proj_size=16,
        hidden_size=[16, 16],
        dropout=[0.0, 0.0],
        layer_norm=[True, False],
        proj=[True, True],
        sample_rate=[1, 1],
        bidirectional=True,
    )


def s3prl_apc() -> nn.Module:
    from s3prl.upstream.apc.apc import APC

    return APC(12, 16, 3, 0.1, True)


def coqui_speaker() -> nn.Module:
    from TTS.encoder.models.lstm import LSTMWithoutProjection

    return LSTMWithoutProjection(12, 16, 8, 3)


def coqui_speaker_projected() -> nn.Module:
    from TTS.encoder.models.lstm import LSTMWithProjection

    return nn.Sequential(LSTMWithProjection(12, 16, 8), LSTMWithProjection(8, 16, 8))


def coqui_encoder() -> nn.Module:
    from TTS.tts.layers.tacotron.tacotron2 import Encoder

    return Encoder(32)


def coqui_reference() -> nn.Module:
    from TTS.tts.layers.tacotron.gst_layers import ReferenceEncoder

    return ReferenceEncoder(80, 32)


def wavencoder(name: str, **options: Any) -> nn.Module:
    from wavencoder.models import lstm_classifier

    return getattr(lstm_classifier, name)(12, 16, 4, **options)


def funasr_decoder() -> nn.Module:
    from funasr.models.transducer.rnnt_decoder import RNNTDecoder

    return RNNTDecoder(20, 12, 16, num_layers=2)


def jdc() -> nn.Module:
    from styletts2.Utils.JDC.model import JDCNet

    return JDCNet(num_class=8)


def nisqa_lstm() -> nn.Module:
    from nisqa.NISQA_lib import LSTM

    return LSTM(12, 16)


def lstm_states(layers: int, batch: int, hidden: int) -> tuple[Any, Any]:
    return torch.randn(layers, batch, hidden), torch.randn(layers, batch, hidden)


SPEECH = (
    Model("resemblyzer VoiceEncoder", RESEMBLYZER, resemblyzer, lambda b, t: (torch.rand(b, t, 40),)),
    Model("kokoro TextEncoder", KOKORO, lambda: kokoro("TextEncoder", 16, 5, 2, 20), kokoro_text),
    Model("kokoro DurationEncoder", KOKORO, lambda: kokoro("DurationEncoder", 8, 16, 2), kokoro_duration),
    Model("kokoro ProsodyPredictor", KOKORO, lambda: kokoro("ProsodyPredictor", 8, 16, 2), kokoro_prosody),
    Model(
        "torchaudio Tacotron2 encoder",
        TORCHAUDIO,
        tacotron_encoder,
        lambda b, t: (torch.randn(b, 32, t), lengths(b, t)),
    ),
    Model(
        "torchaudio Tacotron2 decoder",
        TORCHAUDIO,
        tacotron_decoder,
        lambda b, t: (torch.randn(b, 5, 16), torch.randn(b, 8, t), torch.full((b,), 5)),
    ),
    Model("torchaudio DeepSpeech", TORCHAUDIO, deep_speech, lambda b, t: (torch.randn(b, 1, t, 20),), gain=3),
    Model(
        "torchaudio WaveRNN",
        TORCHAUDIO,
        wave_rnn,
        lambda b, t: (torch.randn(b, 1, 4 * t), torch.randn(b, 1, 8, t + 4)),
    ),
    Model("NeMo LSTMDropout", NEMO, lambda: nemo_rnn(None), lambda b, t: (torch.randn(t, b, 12),)),
    Model("NeMo BNRNNSum", NEMO, lambda: nemo_rnn("batch"), lambda b, t: (torch.randn(t, b, 12),)),
    Model(
        "espnet RNNEncoder",
        ESPNET,
        lambda: espnet_encoder(use_projection=False),
        lambda b, t: (torch.randn(b, t, 12), lengths(b, t)),
    ),
    Model(
        "espnet RNNEncoder with projections",
        ESPNET,
        lambda: espnet_encoder(subsample=None),
        lambda b, t: (torch.randn(b, t, 12), lengths(b, t)),
    ),
    Model(
        "espnet RNNEncoder with subsampling",
        ESPNET,
        lambda: espnet_encoder(subsample=(2, 1)),
        lambda b, t: (torch.randn(b, t, 12), lengths(b, t)),
        longer=2,
    ),
    Model("espnet VGGRNNEncoder", ESPNET, espnet_vgg, lambda b, t: (torch.randn(b, t, 8), lengths(b, t)), longer=4),
    Model("espnet RNNSeparator", ESPNET, espnet_separator, lambda b, t: (torch.rand(b, t, 12), lengths(b, t))),
    Model("espnet SkiM", ESPNET, espnet_skim, lambda b, t: (torch.randn(b, t, 12),)),
    Model(
        "espnet SequentialRNNLM",
        ESPNET,
        espnet_lm,
        lambda b, t: (tokens(b, t, 20), lstm_states(2, b, 16)),
    ),
    Model(
        "SpeechBrain LSTM",
        SPEECHBRAIN,
        lambda: speechbrain("LSTM", 16, input_size=12, num_layers=2, bidirectional=True),
        lambda b, t: (torch.randn(b, t, 12), None, lengths(b, t) / t),
    ),
    Model(
        "SpeechBrain GRU",
        SPEECHBRAIN,
        lambda: speechbrain("GRU", 16, input_size=12, num_layers=2),
        lambda b, t: (torch.randn(b, t, 12),),
    ),
    Model(
        "SpeechBrain LiGRU",
        SPEECHBRAIN,
        lambda: speechbrain("LiGRU", 16, (2, 6, 12), num_layers=2, bidirectional=True),
        lambda b, t: (torch.randn(b, t, 12),),
    ),
    Model(
        "SpeechBrain QuasiRNN",
        SPEECHBRAIN,
        lambda: speechbrain("QuasiRNN", 16, (2, 6, 12), num_layers=2),
        lambda b, t: (torch.randn(b, t, 12),),
    ),
    Model(
        "SpeechBrain AttentionalRNNDecoder",
        SPEECHBRAIN,
        lambda: speechbrain("AttentionalRNNDecoder", "gru", "content", 16, 16, 1, enc_dim=12, input_size=10),
        lambda b, t: (torch.randn(b, t, 10), torch.randn(b, 5, 12), torch.ones(b)),
    ),
    Model("s3prl RNNEncoder", S3PRL, s3prl_encoder, lambda b, t: (torch.randn(b, t, 12), unsorted_lengths(b, t))),
    Model("s3prl APC", S3PRL, s3prl_apc, lambda b, t: (torch.randn(b, t, 12), unsorted_lengths(b, t), True)),
    Model("Coqui LSTM speaker encoder", COQUI, coqui_speaker, lambda b, t: (torch.randn(b, t, 12),), gain=3),
    Model("Coqui projected speaker layers", COQUI, coqui_speaker_projected, lambda b, t: (torch.randn(b, t, 12),)),
    Model("Coqui Tacotron2 encoder", COQUI, coqui_encoder, lambda b, t: (torch.randn(b, 32, t), lengths(b, t))),
    Model("Coqui GST ReferenceEncoder", COQUI, coqui_reference, lambda b, t: (torch.randn(b, t, 80),), gain=3),
    Model(
        "wavencoder LSTM_Classifier",
        WAVENCODER,
        lambda: wavencoder("LSTM_Classifier"),
        lambda b, t: (torch.randn(b, 12, t),),
    ),
    Model(
        "wavencoder LSTM_Attn_Classifier",
        WAVENCODER,
        lambda: wavencoder("LSTM_Attn_Classifier", return_attn_weights=True),
        lambda b, t: (torch.randn(b, 12, t),),
    ),
    Model("FunASR RNNTDecoder", FUNASR, funasr_decoder, lambda b, t: (tokens(b, t, 20), lengths(b, t))),
    Model("StyleTTS2 JDCNet", STYLETTS, jdc, lambda b, t: (torch.randn(b, 1, 80, t),)),
    Model("NISQA LSTM", NISQA, nisqa_lstm, lambda b, t: (torch.randn(b, t, 12), unsorted_lengths(b, t))),
)
