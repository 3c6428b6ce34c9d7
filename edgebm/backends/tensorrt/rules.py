"""What TensorRT's parser and builder ask of an ONNX graph: the rules as a table.

No rule was tried on a device: `source` says where it was read. Codes are kept for good, so E11 is
not given out again.
"""

from __future__ import annotations

from edgebm.backends.tensorrt.rule import Rule

_ERRORS = (
    Rule(
        "E01",
        "Every zero point is a constant of zeros.",
        "Quantize symmetrically, activations too (ONNX Runtime: ActivationSymmetric).",
        "P H",
    ),
    Rule(
        "E02",
        "Integers are int8 (or int4); beside them there are fp8 and fp4, never uint8 or int16.",
        "Quantize activations to int8, and write an int8 zero point: left out it means uint8.",
        "P H",
        unseen="From 10.10 on some uint8 constants are read, for DLA. That is not relied on.",
    ),
    Rule(
        "E03",
        "Nothing of int32 is dequantized: a bias stays in float.",
        "Leave biases alone (ONNX Runtime: QuantizeBias=False).",
        "P M",
    ),
    Rule(
        "E04",
        "Every scale is a constant, finite and above 0.",
        "Calibrate ranges before, and fold what computes a scale into a constant.",
        "P H",
    ),
    Rule(
        "E05",
        "Only constants have a scale for each channel or block; an activation has one.",
        "Quantize activations per tensor.",
        "P H",
    ),
    Rule(
        "E06",
        "A weight has one scale for each output channel, along the axis of those.",
        "Use axis 0 for Conv, 1 for ConvTranspose, 0 or 1 for Gemm with and without transB, the "
        "last one for MatMul; one scale for the whole tensor is always safe.",
        "P M G I",
        unseen="Which axis ConvTranspose wants in 10.3 is not settled: per tensor is safe.",
    ),
    Rule(
        "E07",
        "Scale and zero point have the same size; scales are one number, one axis, or blocks "
        "along one axis of a weight.",
        "Write both in one shape: [], [channels], or the weight's with one axis divided.",
        "P H",
    ),
    Rule(
        "E08",
        "What is quantized has at least one axis.",
        "Leave scalars in float.",
        "H",
    ),
    Rule(
        "E09",
        "Every operator is one that TensorRT's parser imports.",
        "Use QuantizeLinear and DequantizeLinear, not operators on integers or of one runtime; "
        "write the others out, or cut them off and run them elsewhere.",
        "P G",
        unseen="The list is that of 10.1, so a newer parser may import more. Of an operator of "
        "another domain it is not known whether the device has its plugin. The domain trt is "
        "taken for the parser's own, and its operators are not looked into.",
    ),
    Rule(
        "E10",
        "The opset is 9 or newer, and not newer than the parser knows.",
        "Export with opset 19 or 20, which every version takes.",
        "P G",
    ),
    Rule(
        "E12",
        "A quantized convolution says its kernel_shape.",
        "Write the attribute kernel_shape: the parser does not read it from a dequantized weight.",
        "P",
        until=(10, 4),
    ),
    Rule(
        "E13",
        "A quantized value, its scales and what reads it have one floating type; from 11.1 on the "
        "scale of a Q may be FP32 beside any.",
        "Cast inputs or scales so that all are FP16 or all FP32, from Q to the node behind DQ.",
        "H I",
        unseen="That a graph builds on one GPU and not on another, same version (#4832), shows "
        "on the device only.",
    ),
    Rule(
        "E14",
        "An FP16 Gemm has alpha and beta of 1 and matrices for inputs; before 10.7 an FP16 "
        "BatchNormalization has FP16 constants.",
        "Put alpha and beta into the constants, reshape inputs, and fold BatchNormalization.",
        "P",
    ),
    Rule(
        "E15",
        "Recurrent operators, pooling, Resize, TopK, Loop and some others have a form that the "
        "parser takes.",
        "Export the operator in the form that the finding names, or cut it off.",
        "P O",
        unseen="NonZero and NonMaxSuppression are taken: their outputs have a size that only a "
        "run tells. Shapes that a Loop carries are compared only where the file says them.",
    ),
    Rule(
        "E16",
        "An int4 weight is a constant with an even last axis and scales for blocks along one.",
        "Quantize weights only, in blocks, and pad an odd axis.",
        "P H",
    ),
    Rule(
        "E17",
        "Integers of 8 bits and fewer are written by Q and read by DQ; no other operator takes "
        "them.",
        "Dequantize in front of the operator; leave the table of an embedding in FP16.",
        "O",
        unseen="A constant that is only moved on its way to DQ is taken to be folded, and not "
        "named.",
    ),
    Rule(
        "E18",
        "Inputs and outputs are floats, int8, uint8, int32, int64 or bool, and an input of uint8 "
        "is read by Cast alone.",
        "Cast an input of uint8 before anything else; give int16 numbers as int32 or floats.",
        "P H",
    ),
)  # fmt: skip
_WARNINGS = (
    Rule(
        "W01",
        "Both operands of a Conv, ConvTranspose, Gemm or MatMul are quantized, or neither.",
        "Put Q/DQ on the other operand too, or on none: one alone gives no int8 kernel.",
        "G",
    ),
    Rule(
        "W02",
        "No Q/DQ stands between a layer and its bias, BatchNormalization or activation.",
        "Quantize behind the activation.",
        "G M",
    ),
    Rule(
        "W03",
        "BatchNormalization behind a quantized layer is folded into it.",
        "Fold it before quantizing: scales for each channel are then those of the folded weight.",
        "G",
    ),
    Rule(
        "W04",
        "Softmax, normalizations, GELU, Sigmoid, Tanh, reductions and copies have no Q/DQ of "
        "their own.",
        "Take the Q/DQ away; only a LayerNormalization of what a Conv writes gains by one.",
        "M",
    ),
    Rule(
        "W05",
        "At a residual Add the skip is quantized, and the branch that ends in a Conv is not.",
        "Put Q/DQ on the skip only: its type decides what the fused convolution writes.",
        "G M",
    ),
    Rule(
        "W06",
        "A Conv has a scale for each output channel, and int8 weights lie in -127 to 127.",
        "Quantize weights per channel, and clip at -127: -128 has no counterpart.",
        "G",
    ),
    Rule(
        "W07",
        "Convolutions of few channels, with a computed weight, or transposed with groups stay "
        "float.",
        "Leave the layer out of quantization: below 16 channels int8 rarely pays.",
        "M I",
        unseen="Whether int8 pays for this very layer is measured by the builder on the device.",
    ),
    Rule(
        "W08",
        "Products with fewer than 16 columns or summands, or with one row or column, stay float.",
        "Leave the layer out of quantization.",
        "M",
        unseen="Whether int8 pays for this very layer is measured by the builder on the device.",
    ),
    Rule(
        "W09",
        "Inputs and output of a quantized Concat share one scale.",
        "Give all of them the largest scale.",
        "M",
    ),
    Rule(
        "W10",
        "What is dequantized is not quantized again at once by another scale.",
        "Use one scale on both sides, or take one pair away.",
        "M",
    ),
    Rule(
        "W11",
        "Outputs of the model stay float.",
        "Take the last Q/DQ away.",
        "M",
    ),
    Rule(
        "W12",
        "A tensor is quantized by one scale, whoever reads it.",
        "Use one Q for all its readers.",
        "M",
    ),
    Rule(
        "W13",
        "Products of two activations are quantized only inside attention: MatMul, a mask or none, "
        "Softmax, MatMul; up to 512 steps. The mask's Add is not.",
        "Leave both products of other attentions in float, and put a factor in front of the first "
        "product.",
        "G M",
        unseen="Lengths of a free axis are not known, so they are not looked at. That the factor "
        "belongs in front of the first product is what the guide says; Model Optimizer 0.47 takes "
        "an attention with one behind for an attention too, and in int8 it leaves products in "
        "float that have a mask and no factor between them.",
    ),
    Rule(
        "W14",
        "Pooling and Add are quantized on both sides or not at all, MaxPool only beside a "
        "quantized layer; a Resize behind a quantized convolution reads integers.",
        "Quantize the missing side, or take the pair away.",
        "G M",
        unseen="Model Optimizer 0.47 quantizes the term of an Add that a product ends in, so that "
        "the product writes int8, and often not the other term. Whether that pays is measured on "
        "the device.",
    ),
    Rule(
        "W15",
        "What is not quantized computes in FP16; inputs and outputs stay FP32 behind a Cast.",
        "Convert the rest of the graph to FP16: strong typing computes what the file says.",
        "M",
        unseen="Whether the values of a layer fit into FP16 is seen only on samples, so what "
        "stands between Casts from and to FP16 is taken to be in FP32 on purpose.",
    ),
)  # fmt: skip
RULES: dict[str, Rule] = {rule.code: rule for rule in (*_ERRORS, *_WARNINGS)}
