"""The papers that docstrings name by their arXiv number, and which of them stand behind a set of classes.

A docstring says *which* paper; this table only says what a number is called. `tests/test_papers.py` finds the numbers
in the package that are not in it.
"""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

NUMBER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class Paper:
    """A preprint.

    Attributes:
        number: on arXiv, "2209.14988".
        authors: as BibTeX takes them: the first, or two, "and others".
        title: its title.
    """

    number: str
    authors: str
    title: str

    @property
    def year(self) -> int:
        """Of the first version."""
        return 2000 + int(self.number[:2])

    @property
    def key(self) -> str:
        """For BibTeX: poole2022dreamfusion."""
        family = self.authors.partition(",")[0]
        word = next(w for w in re.findall(r"[\w-]+", self.title) if len(w) > 3)
        plain = unicodedata.normalize("NFKD", f"{family}{self.year}{word}")  # an umlaut is a letter and a mark
        return re.sub(r"[^a-z0-9]", "", plain.lower())

    def bibtex(self) -> str:
        return (
            f"@misc{{{self.key},\n"
            f"  title         = {{{{{self.title}}}}},\n"
            f"  author        = {{{self.authors}}},\n"
            f"  year          = {{{self.year}}},\n"
            f"  eprint        = {{{self.number}}},\n"
            "  archivePrefix = {arXiv}\n"
            "}"
        )

    def line(self) -> str:
        """Poole et al., 2022: DreamFusion: Text-to-3D using 2D Diffusion. arXiv:2209.14988"""
        families = [name.partition(",")[0] for name in self.authors.split(" and ")]
        who = f"{families[0]} et al." if "others" in families else " & ".join(families)
        return f"{who}, {self.year}: {self.title}. arXiv:{self.number}"


def cited(classes: Iterable[type]) -> Mapping[Paper, tuple[str, ...]]:
    """The papers that these classes' docstrings name, each with the names of those classes, in the order of mention.

    Numbers that the table does not have come without a title.
    """
    found: dict[str, list[str]] = {}
    for cls in classes:
        for number in NUMBER.findall(inspect.getdoc(cls) or ""):
            names = found.setdefault(number, [])
            if cls.__name__ not in names:
                names.append(cls.__name__)
    return {PAPERS.get(n, Paper(n, "Unknown", f"arXiv preprint {n}")): tuple(names) for n, names in found.items()}


_TABLE = """
1412.6980 | Kingma, Diederik P. and Ba, Jimmy | Adam: A Method for Stochastic Optimization
1609.08144 | Wu, Yonghui and others | Google's Neural Machine Translation System: Bridging the Gap between Human and Machine Translation
1711.05101 | Loshchilov, Ilya and Hutter, Frank | Decoupled Weight Decay Regularization
1804.01654 | Wang, Nanyang and others | Pixel2Mesh: Generating 3D Mesh Models from Single RGB Images
1810.04650 | Sener, Ozan and Koltun, Vladlen | Multi-Task Learning as Multi-Objective Optimization
1910.10683 | Raffel, Colin and others | Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer
2002.10099 | Gropp, Amos and others | Implicit Geometric Regularization for Learning Shapes
2003.08934 | Mildenhall, Ben and others | NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis
2006.11239 | Ho, Jonathan and others | Denoising Diffusion Probabilistic Models
2007.10740 | Ren, Jiawei and others | Balanced Meta-Softmax for Long-Tailed Visual Recognition
2010.02502 | Song, Jiaming and others | Denoising Diffusion Implicit Models
2011.03277 | Laine, Samuli and others | Modular Primitives for High-Performance Differentiable Rendering
2102.09672 | Nichol, Alex and Dhariwal, Prafulla | Improved Denoising Diffusion Probabilistic Models
2103.00020 | Radford, Alec and others | Learning Transferable Visual Models From Natural Language Supervision
2106.03452 | Peng, Songyou and others | Shape As Points: A Differentiable Poisson Solver
2106.09685 | Hu, Edward J. and others | LoRA: Low-Rank Adaptation of Large Language Models
2106.10689 | Wang, Peng and others | NeuS: Learning Neural Implicit Surfaces by Volume Rendering for Multi-view Reconstruction
2106.12052 | Yariv, Lior and others | Volume Rendering of Neural Implicit Surfaces
2111.04276 | Shen, Tianchang and others | Deep Marching Tetrahedra: a Hybrid Representation for High-Resolution 3D Shape Synthesis
2111.12077 | Barron, Jonathan T. and others | Mip-NeRF 360: Unbounded Anti-Aliased Neural Radiance Fields
2111.12503 | Munkberg, Jacob and others | Extracting Triangular 3D Models, Materials, and Lighting From Images
2112.03907 | Verbin, Dor and others | Ref-NeRF: Structured View-Dependent Appearance for Neural Radiance Fields
2112.10752 | Rombach, Robin and others | High-Resolution Image Synthesis with Latent Diffusion Models
2201.05989 | Müller, Thomas and others | Instant Neural Graphics Primitives with a Multiresolution Hash Encoding
2202.00512 | Salimans, Tim and Ho, Jonathan | Progressive Distillation for Fast Sampling of Diffusion Models
2205.11487 | Saharia, Chitwan and others | Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding
2207.12598 | Ho, Jonathan and Salimans, Tim | Classifier-Free Diffusion Guidance
2208.12242 | Ruiz, Nataniel and others | DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation
2209.03003 | Liu, Xingchao and others | Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow
2209.14988 | Poole, Ben and others | DreamFusion: Text-to-3D using 2D Diffusion
2210.03142 | Meng, Chenlin and others | On Distillation of Guided Diffusion Models
2211.07600 | Metzer, Gal and others | Latent-NeRF for Shape-Guided Generation of 3D Shapes and Textures
2211.09800 | Brooks, Tim and others | InstructPix2Pix: Learning to Follow Image Editing Instructions
2211.10440 | Lin, Chen-Hsuan and others | Magic3D: High-Resolution Text-to-3D Content Creation
2212.00774 | Wang, Haochen and others | Score Jacobian Chaining: Lifting Pretrained 2D Diffusion Models for 3D Generation
2212.09748 | Peebles, William and Xie, Saining | Scalable Diffusion Models with Transformers
2302.05543 | Zhang, Lvmin and others | Adding Conditional Control to Text-to-Image Diffusion Models
2303.09556 | Hang, Tiankai and others | Efficient Diffusion Training via Min-SNR Weighting Strategy
2303.11328 | Liu, Ruoshi and others | Zero-1-to-3: Zero-shot One Image to 3D Object
2303.13873 | Chen, Rui and others | Fantasia3D: Disentangling Geometry and Appearance for High-quality Text-to-3D Content Creation
2303.16203 | Li, Alexander C. and others | Your Diffusion Model is Secretly a Zero-Shot Classifier
2304.04968 | Armandpour, Mohammadreza and others | Re-imagine the Negative Prompt Algorithm: Transform 2D Diffusion into 3D, alleviate Janus problem and Beyond
2304.07090 | Hertz, Amir and others | Delta Denoising Score
2305.08891 | Lin, Shanchuan and others | Common Diffusion Noise Schedules and Sample Steps are Flawed
2305.16213 | Wang, Zhengyi and others | ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with Variational Score Distillation
2305.18455 | Luo, Weijian and others | Diff-Instruct: A Universal Approach for Transferring Knowledge From Pre-trained Diffusion Models
2305.18766 | Zhu, Junzhe and others | HiFA: High-fidelity Text-to-3D Generation with Advanced Diffusion Guidance
2306.03092 | Li, Zhaoshuo and others | Neuralangelo: High-Fidelity Neural Surface Reconstruction
2306.05044 | Dupuy, Jonathan and Benyoub, Anis | Sampling Visible GGX Normals with Spherical Caps
2306.12422 | Huang, Yukun and others | DreamTime: An Improved Optimization Strategy for Diffusion-Guided 3D Generation
2307.01952 | Podell, Dustin and others | SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis
2308.04079 | Kerbl, Bernhard and others | 3D Gaussian Splatting for Real-Time Radiance Field Rendering
2308.05371 | Shen, Tianchang and others | Flexible Isosurface Extraction for Gradient-Based Mesh Optimization
2308.06721 | Ye, Hu and others | IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models
2308.16512 | Shi, Yichun and others | MVDream: Multi-view Diffusion for 3D Generation
2309.16653 | Tang, Jiaxiang and others | DreamGaussian: Generative Gaussian Splatting for Efficient 3D Content Creation
2310.00426 | Chen, Junsong and others | PixArt-alpha: Fast Training of Diffusion Transformer for Photorealistic Text-to-Image Synthesis
2310.16818 | Sun, Jingxiang and others | DreamCraft3D: Hierarchical 3D Generation with Bootstrapped Diffusion Prior
2310.17590 | Katzir, Oren and others | Noise-Free Score Distillation
2310.19415 | Yu, Xin and others | Text-to-3D with Classifier Score Distillation
2311.11284 | Liang, Yixun and others | LucidDreamer: Towards High-Fidelity Text-to-3D Generation via Interval Score Matching
2311.16493 | Yu, Zehao and others | Mip-Splatting: Alias-free 3D Gaussian Splatting
2311.18828 | Yin, Tianwei and others | One-step Diffusion with Distribution Matching Distillation
2312.02189 | Guo, Pengsheng and others | StableDreamer: Taming Noisy Score Distillation Sampling for Text-to-3D
2312.02201 | Wang, Peng and Shi, Yichun | ImageDream: Image-Prompt Multi-view Diffusion for 3D Generation
2312.05239 | Nguyen, Thuan Hoang and Tran, Anh | SwiftBrush: One-Step Text-to-Image Diffusion Model with Variational Score Distillation
2401.00909 | Wang, Peihao and others | Taming Mode Collapse in Score Distillation for Text-to-3D Generation
2401.16764 | Yu, Yonghao and others | BoostDream: Efficient Refining for High-Quality Text-to-3D Generation from Multi-View Diffusion
2402.05054 | Tang, Jiaxiang and others | LGM: Large Multi-View Gaussian Model for High-Resolution 3D Content Creation
2403.03206 | Esser, Patrick and others | Scaling Rectified Flow Transformers for High-Resolution Image Synthesis
2403.04692 | Chen, Junsong and others | PixArt-Sigma: Weak-to-Strong Training of Diffusion Transformer for 4K Text-to-Image Generation
2403.17888 | Huang, Binbin and others | 2D Gaussian Splatting for Geometrically Accurate Radiance Fields
2404.04057 | Zhou, Mingyuan and others | Score identity Distillation: Exponentially Fast Distillation of Pretrained Diffusion Models for One-Step Generation
2404.06109 | Rota Bulo, Samuel and others | Revising Densification in Gaussian Splatting
2404.09591 | Kheradmand, Shakiba and others | 3D Gaussian Splatting as Markov Chain Monte Carlo
2404.10484 | Ye, Zongxin and others | AbsGS: Recovering Fine Details for 3D Gaussian Splatting
2405.10314 | Gao, Ruiqi and others | CAT3D: Create Anything in 3D with Multi-View Diffusion Models
2405.11252 | Miao, Xingyu and others | Dreamer XL: Towards High-Resolution Text-to-3D Generation via Trajectory Score Matching
2405.14867 | Yin, Tianwei and others | Improved Distribution Matching Distillation for Fast Image Synthesis
2405.15891 | Lukoianov, Artem and others | Score Distillation via Reparametrized DDIM
2406.01467 | Zhang, Baowen and others | RaDe-GS: Rasterizing Depth in Gaussian Splatting
2406.03293 | Yang, Xiaofeng and others | Text-to-Image Rectified Flow as Plug-and-Play Priors
2407.02040 | Ma, Zhiyuan and others | ScaleDreamer: Scalable Text-to-3D Synthesis with Asynchronous Score Distillation
2407.13976 | Huang, Shuo and others | PlacidDreamer: Advancing Harmony in Text-to-3D Generation
2410.02416 | Sadat, Seyedmorteza and others | Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models
2410.09009 | Yang, Ling and others | Semantic Score Distillation Sampling for Compositional Text-to-3D Generation
2410.21299 | Yang, Jiahui and others | TV-3DG: Mastering Text-to-3D Customized Generation with Visual Prompt
2411.01602 | Cheng, Yean and others | DreamPolish: Domain Score Distillation With Progressive Geometry Generation
2412.02687 | Nguyen, Viet and others | SNOOPI: Supercharged One-step Diffusion Distillation with Proper Guidance
2502.15681 | Xu, Yilun and others | One-step Diffusion Models with f-Divergence Distribution Matching
2511.13720 | Li, Tianhong and He, Kaiming | Back to Basics: Let Denoising Generative Models Denoise
"""  # noqa: E501


def _read(table: str) -> Mapping[str, Paper]:
    papers = (Paper(*(part.strip() for part in line.split("|"))) for line in table.strip().splitlines())
    return MappingProxyType({paper.number: paper for paper in papers})


PAPERS = _read(_TABLE)
"""By number."""
