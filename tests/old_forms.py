"""Operators in the forms they had before opset 20, as ONNX text."""

from __future__ import annotations

FLOATS = "float[2,3,4,5] x"
OLD_FORMS: dict[str, tuple[int, str, str]] = {
    # name: opset, inputs, body; the output is y
    "BatchNormalization spatial": (
        7,
        f"{FLOATS}, float[3] s, float[3] b, float[3] m, float[3] v",
        "y = BatchNormalization<spatial=1>(x, s, b, m, v)",
    ),
    "Clip attributes": (10, FLOATS, "y = Clip<min=-0.5, max=0.25>(x)"),
    "Clip one bound": (7, FLOATS, "y = Clip<max=0.25>(x)"),
    "Pad double": (7, "double[2,3] x", "y = Pad<pads=[0,1,0,1], value=0.5>(x)"),
    "Dropout": (7, FLOATS, "a = Dropout<ratio=0.3>(x)\n y = Neg(a)"),
    "Dropout opset 10": (10, FLOATS, "a = Dropout<ratio=0.3>(x)\n y = Neg(a)"),
    "Hardmax": (9, "float[2,3,4] x", "y = Hardmax<axis=1>(x)"),
    "LogSoftmax last": (11, FLOATS, "y = LogSoftmax<axis=3>(x)"),
    "LogSoftmax negative": (11, FLOATS, "y = LogSoftmax<axis=-2>(x)"),
    "Pad": (10, FLOATS, "y = Pad<pads=[0,0,1,2,0,0,3,4], value=1.5>(x)"),
    "Pad reflect": (7, FLOATS, 'y = Pad<pads=[0,0,1,2,0,0,3,4], mode="reflect">(x)'),
    "ReduceMean": (11, FLOATS, "y = ReduceMean<axes=[1,-1], keepdims=0>(x)"),
    "ReduceMean all": (17, FLOATS, "y = ReduceMean<keepdims=0>(x)"),
    "ReduceL2": (13, FLOATS, "y = ReduceL2<axes=[2]>(x)"),
    "ReduceSum": (12, FLOATS, "y = ReduceSum<axes=[0,2]>(x)"),
    "RoiAlign": (
        10,
        "float[1,2,9,9] x, float[2,4] r, int64[2] i",
        "y = RoiAlign<output_height=3, output_width=3, sampling_ratio=2>(x, r, i)",
    ),
    "Scatter": (9, "float[3,3] x, int64[2,3] i, float[2,3] u", "y = Scatter<axis=0>(x, i, u)"),
    "Slice": (9, FLOATS, "y = Slice<axes=[1,3], starts=[0,-3], ends=[2,1000]>(x)"),
    "Slice all axes": (7, FLOATS, "y = Slice<starts=[0,0,1,1], ends=[1,3,4,3]>(x)"),
    "Softmax default": (7, FLOATS, "y = Softmax(x)"),
    "Softmax from 0": (11, FLOATS, "y = Softmax<axis=0>(x)"),
    "Softmax middle": (12, FLOATS, "y = Softmax<axis=2>(x)"),
    "Softmax of ones": (9, "float[2,7,1,1] x", "y = Softmax<axis=1>(x)"),
    "Softmax free axes": (9, "float[A,B,C] x", "y = Softmax<axis=1>(x)"),
    "Split": (11, "float[6,4] x", "y, z = Split<axis=0, split=[4,2]>(x)"),
    "Split equal": (13, "float[6,4] x", "y, z, w = Split<axis=0>(x)"),
    "Squeeze": (11, "float[1,3,1] x", "y = Squeeze<axes=[0,-1]>(x)"),
    "Squeeze all": (7, "float[1,3,1] x", "y = Squeeze(x)"),
    "Sum of many": (7, "float[3] x, float[3] u", "y = Sum(x, u, x)"),
    "TopK": (9, "float[2,9] x", "y, i = TopK<k=3>(x)"),
    "Unsqueeze": (11, "float[3,4] x", "y = Unsqueeze<axes=[0,-1]>(x)"),
    "Upsample nearest": (7, FLOATS, 'y = Upsample<mode="nearest", scales=[1.0,1.0,2.0,3.0]>(x)'),
    "Upsample linear": (8, FLOATS, 'y = Upsample<mode="linear", scales=[1.0,1.0,2.0,2.0]>(x)'),
    "Upsample input": (
        9,
        FLOATS,
        "s = Constant<value=float[4] {1.0,1.0,1.5,2.0}>()\n y = Upsample(x, s)",
    ),
    **{
        f"Resize nearest {scale}": (
            10,
            "float[1,1,1,17] x",
            f"s = Constant<value=float[4] {{1.0,1.0,1.0,{scale}}}>()\n y = Resize(x, s)",
        )
        for scale in (0.3, 0.5, 0.6, 0.75, 1.3, 2.0, 2.6)
    },
    "Resize linear": (
        10,
        FLOATS,
        's = Constant<value=float[4] {1.0,1.0,2.0,0.5}>()\n y = Resize<mode="linear">(x, s)',
    ),
    **{
        f"Resize half pixel for nn, {mode}": (
            11,
            "float[1,1,1,7] x",
            "r = Constant<value=float[0] {}>()\n"
            "s = Constant<value=float[0] {}>()\n"
            "n = Constant<value=int64[4] {1,1,1,12}>()\n"
            'y = Resize<coordinate_transformation_mode="tf_half_pixel_for_nn", '
            f'nearest_mode="{mode}">(x, r, s, n)',
        )
        for mode in ("floor", "round_prefer_floor")
    },
    "GridSample": (
        16,
        "float[1,2,5,5] x, float[1,3,3,2] g",
        'y = GridSample<mode="bilinear", padding_mode="border">(x, g)',
    ),
    "GridSample cubic": (
        16,
        "float[1,2,5,5] x, float[1,3,3,2] g",
        'y = GridSample<mode="bicubic", padding_mode="border">(x, g)',
    ),
    "DFT": (17, "float[1,8,3,1] x", "y = DFT<axis=1>(x)"),
    "DFT default": (17, "float[1,8,3,1] x", "y = DFT(x)"),
    "GroupNormalization": (
        18,
        "float[2,6,4,4] x, float[3] s, float[3] b",
        "y = GroupNormalization<num_groups=3>(x, s, b)",
    ),
    "MaxPool": (7, FLOATS, "y = MaxPool<kernel_shape=[2,2], strides=[2,1]>(x)"),
    "ArgMax": (7, FLOATS, "y = ArgMax<axis=2>(x)"),
    "Gemm": (7, "float[3,4] x, float[4,2] w, float[2] b", "y = Gemm(x, w, b)"),
    "PRelu": (7, "float[2,3,4] x, float[3,1] s", "y = PRelu(x, s)"),
    "Cast": (7, FLOATS, "y = Cast<to=7>(x)"),
    "Gather": (7, "float[5,3] x, int64[2] i", "y = Gather(x, i)"),
    "LSTM": (
        7,
        "float[4,2,3] x, float[1,8,3] w, float[1,8,2] r",
        "y, h = LSTM<hidden_size=2>(x, w, r)",
    ),
}
