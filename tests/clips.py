"""Clips written for tests: a bright square that moves over a dark field."""

from fractions import Fraction

import numpy as np


def moving_square(num_frames=20, size=(32, 32), *, speed=1, start=0, colour=(255, 255, 255)):
    """uint8 [T, H, W, 3]."""
    width, height = size
    frames = np.full((num_frames, height, width, 3), 16, dtype=np.uint8)
    for number in range(num_frames):
        left = (start + speed * number) % (width - 8)
        frames[number, height // 2 - 4 : height // 2 + 4, left : left + 8] = colour
    return frames


def write_clip(path, frames, *, fps=10, codec=None, times=None, prepare=None, spoil=()):
    """By PyAV, gif by Pillow; the codec by the file's name.

    times: the seconds at which frames are shown; None: by the rate.
    prepare: a function that gets the stream before anything is written.
    spoil: numbers of packets whose content is replaced by rubbish.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        from PIL import Image

        pictures = [Image.fromarray(frame) for frame in frames]
        pictures[0].save(
            path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0
        )
        return path
    codec = codec or {".avi": "mpeg4", ".webm": "libvpx", ".mkv": "ffv1"}.get(
        path.suffix, "libx264"
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = {"ffv1": "yuv444p", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if prepare is not None:
            prepare(stream)
        packets = []
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times is not None:
                picture.pts, picture.time_base = round(1000 * times[number]), Fraction(1, 1000)
            packets += stream.encode(picture)
        for number, packet in enumerate([*packets, *stream.encode()]):
            container.mux(_rubbish_for(packet, stream) if number in spoil else packet)
    return path


def _rubbish_for(packet, stream):
    import av

    rubbish = av.Packet(b"\xff" * packet.size)
    rubbish.stream, rubbish.time_base = stream, packet.time_base
    rubbish.pts, rubbish.dts, rubbish.duration = packet.pts, packet.dts, packet.duration
    return rubbish
