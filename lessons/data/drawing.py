"""Drawing with signed distances: the functions behind the built-in scenes, batched in plain torch.

A signed distance function tells for every point how far it is from the edge of a shape, negative inside. One
subtraction and a clamp turn it into an anti-aliased mask, whatever the resolution. All randomness comes from a hash
of (seed, picture, what it is for), never from a generator with a state: a picture does not depend on those drawn
before it.
"""

import math
import zlib

import torch
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring", "star", "heart", "moon", "arrow")
COLOURS = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink")
PATTERNS = ("plain", "striped", "dotted")
RGB = torch.tensor([[.85, .17, .17], [.96, .53, .12], [.97, .85, .22], [.28, .66, .28],
                    [.16, .76, .76], [.18, .38, .86], [.50, .24, .70], [.97, .52, .72]])  # fmt: skip
# How far each shape of radius 1 reaches below its centre.
FEET = torch.tensor([0.86, 0.76, 0.72, 1.0, 0.9, 0.92, 0.8, 0.89, 0.92, 0.92])

# Each row a pair of colours: the sky at the top and at the horizon, the ground at the feet and far away.
SKIES = torch.tensor([[[.32, .58, .90], [.84, .93, .98]], [[.46, .54, .84], [1.0, .85, .74]],
                      [[.50, .72, .86], [.94, .95, .90]], [[.38, .42, .72], [.96, .76, .74]],
                      [[.34, .70, .82], [.97, .95, .82]], [[.64, .62, .80], [.98, .88, .84]]])  # fmt: skip
GROUNDS = torch.tensor([[[.82, .69, .48], [.91, .84, .69]], [[.45, .61, .33], [.71, .79, .55]],
                        [[.88, .91, .96], [.93, .94, .98]], [[.66, .49, .42], [.82, .70, .62]],
                        [[.42, .54, .60], [.68, .78, .82]], [[.66, .64, .38], [.83, .82, .60]]])  # fmt: skip
TONES = torch.tensor([[.90, .87, .80], [.74, .80, .80], [.80, .74, .72], [.62, .66, .70], [.86, .80, .70],
                      [.70, .74, .64], [.50, .52, .58], [.82, .82, .86], [.58, .52, .50], [.92, .91, .90]])  # fmt: skip


def mix(x: Tensor) -> Tensor:
    """Hash int64 values in [0, 2^32) to the same range (a bijection). The products stay below 2^59, so that every
    device gives the same bits."""
    for _ in range(2):
        x = ((x ^ (x >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def uniform(seed: int, index: Tensor, purpose: str, *shape: int) -> Tensor:
    """Random numbers in [0, 1), float32 of shape (N, *shape), that depend on the seed, the picture's index (N,) and the
    purpose (any word) and on nothing else."""
    start = mix(torch.tensor((seed ^ zlib.crc32(purpose.encode())) & 0xFFFFFFFF, device=index.device))
    key = mix((mix(index & 0xFFFFFFFF) + start) & 0xFFFFFFFF)
    counter = torch.arange(math.prod(shape), device=index.device) * 0x9E3779B1
    return ((mix((key[:, None] + counter) & 0xFFFFFFFF) >> 8) * 2.0**-24).float().view(-1, *shape)


def grid(size: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """x (1, 1, S), to the right, and y (1, S, 1), DOWNWARD as rows are, of the pixel centres of a picture that spans
    [-1, 1]."""
    steps = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    return steps.view(1, 1, -1), steps.view(1, -1, 1)


def soft_noise(values: Tensor, size: int) -> Tensor:
    """Value noise: random values (B, G, G') on a coarse grid, smoothly interpolated to (B, size, size)."""
    for axis in (1, 2):
        cells = values.shape[axis] - 1
        at = (torch.arange(size, device=values.device) + 0.5) * (cells / size)
        low = at.long().clamp(max=cells - 1)
        f = at - low
        f = (f * f * (3 - 2 * f)).view((-1, 1) if axis == 1 else (1, -1))
        values = torch.lerp(values.index_select(axis, low), values.index_select(axis, low + 1), f)
    return values


def _star(x: Tensor, y: Tensor) -> Tensor:
    c, s = math.cos(math.pi / 5), math.sin(math.pi / 5)
    x = x.abs()
    for sign in (1, -1):  # fold the five points onto one
        t = (sign * x * c - y * s).clamp(min=0) * 2
        x, y = x - sign * t * c, y + t * s
    x, y = x.abs(), y - 1
    bx, by = 0.46 * s, 0.46 * c - 1
    return (y * bx - x * by) / math.hypot(bx, by)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs() / 1.6, y / 1.6 + 0.56
    lobe = torch.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    t = (x + y).clamp(min=0) / 2
    edge = torch.minimum(torch.hypot(x, y - 1), torch.hypot(x - t, y - t)) * torch.sign(x - y)
    return torch.where(x + y > 1, lobe, edge) * 1.6


def shape_distance(shape: int, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to the edge of SHAPES[shape], of about unit radius, centred at 0; here y points UP. Exact near
    the edges, which is all that drawing needs. Formulas after Quilez, "2D distance functions"."""
    name, ax, ay = SHAPES[shape], x.abs(), y.abs()
    if name == "circle":
        return torch.hypot(x, y) - 0.86
    if name == "square":
        return torch.maximum(ax, ay) - 0.76
    if name == "triangle":
        return torch.maximum(0.894 * ax + 0.447 * y - 0.447, -y - 0.72)
    if name == "diamond":
        return (ax + 0.6 * ay - 0.6) * 0.857
    if name == "cross":
        return torch.minimum(torch.maximum(ax - 0.9, ay - 0.3), torch.maximum(ax - 0.3, ay - 0.9))
    if name == "ring":
        return (torch.hypot(x, y) - 0.68).abs() - 0.24
    if name == "star":
        return _star(x, y)
    if name == "heart":
        return _heart(x, y)
    if name == "moon":
        return torch.maximum(torch.hypot(x - 0.18, y) - 0.92, 0.74 - torch.hypot(x - 0.68, y))
    head = torch.maximum(0.77 * ax + 0.64 * y - 0.62, -y)  # arrow: a triangle on a stick
    return torch.minimum(head, torch.maximum(ax - 0.27, torch.maximum(-y - 0.92, y - 0.3)))


def silhouettes(shape: Tensor, x0: Tensor, y0: Tensor, radius: Tensor, tilt: Tensor, size: int) -> tuple[Tensor, ...]:
    """Signed distance (K, S, S) in half-widths of the picture, and the local coordinates (K, S, S) in units of the
    radius, of K objects given by vectors (K,). Objects are grouped by shape, so that each is evaluated once."""
    x, y = grid(size, shape.device)
    scale = 1 / radius
    c, s = torch.cos(tilt) * scale, torch.sin(tilt) * scale
    x, y = x - x0.view(-1, 1, 1), y - y0.view(-1, 1, 1)
    c, s = c.view(-1, 1, 1), s.view(-1, 1, 1)
    u, v = x * c + y * s, x * s - y * c  # v points up
    distance = torch.empty_like(u)
    for k in range(len(SHAPES)):
        rows = (shape == k).nonzero()[:, 0]
        if len(rows):
            distance[rows] = shape_distance(k, u[rows], v[rows])
    return distance * radius.view(-1, 1, 1), u, v


def surface(
    colour: Tensor, pattern: Tensor, u: Tensor, v: Tensor, inside: Tensor, tilt: Tensor, strength: float, relief: float
) -> Tensor:
    """Colours (K, 3, S, S) of K surfaces: base colour (K, 3), pattern number (K,) of a given strength, shaded by
    `relief` as by a light from above left; `inside` (K, S, S) is the depth below the edge in units of the radius."""
    wave = 8.2
    across = torch.sin(wave * v) * (pattern == 1).view(-1, 1, 1)
    dots = (torch.cos(wave * u) * torch.cos(wave * v) * 2.2 - 0.5) * (pattern == 2).view(-1, 1, 1)
    second = ((across + dots) * 2.5).clamp(0, 1)
    # Stripes and dots are lighter on dark colours and darker on light ones.
    light = (colour * colour.new_tensor([0.3, 0.59, 0.11])).sum(1, keepdim=True)
    other = torch.where(light < 0.55, colour + (1 - colour) * strength, colour * (1 - 0.8 * strength))
    c, s = torch.cos(tilt).view(-1, 1, 1), torch.sin(tilt).view(-1, 1, 1)
    left, up = -(u * c + v * s), v * c - u * s  # turned back: the light does not tilt with the object
    shade = 1 + relief * (0.13 * up + 0.08 * left - 0.28 * (1 - inside * 4).clamp(0, 1))
    glow = 0.16 * relief * torch.exp(-((left - 0.3).square() + (up - 0.34).square()) * 7)
    paint = colour[:, :, None, None] + (other - colour)[:, :, None, None] * second[:, None]
    return paint * shade[:, None] + glow[:, None]


def _pick(table: Tensor, u: Tensor) -> Tensor:
    """Entries of `table` (T, ...) chosen by u (B,) in [0, 1), mixed with a second one so that no two pictures are
    alike."""
    table = table.to(u.device)
    at = u * len(table)
    low = at.long().clamp(max=len(table) - 1)
    f = ((at - low - 0.5) * 0.8).clamp(min=0).view(-1, *[1] * (table.dim() - 1))
    return table[low] + (table[(low + 1) % len(table)] - table[low]) * f


def _clouds(seed: int, index: Tensor, purpose: str, rows: int, columns: int, size: int) -> Tensor:
    """Soft noise of two octaves, (B, 1, S, S) in about [-1, 1]."""
    coarse = soft_noise(uniform(seed, index, purpose, rows + 1, columns + 1), size)
    fine = soft_noise(uniform(seed, index, purpose + " fine", 2 * rows + 2, 2 * columns + 2), size)
    return (coarse * 1.3 + fine * 0.7 - 1)[:, None]


def plain_ground(seed: int, index: Tensor, size: int, clutter: float) -> Tensor:
    """A studio wall, (B, 3, S, S): two muted tones, a gradient, soft noise and two gratings whose strength is
    `clutter`."""
    x, y = grid(size, index.device)
    u = uniform(seed, index, "wall", 12)
    first, second = _pick(TONES, u[:, 0]), _pick(TONES, u[:, 1])
    angle = (u[:, 2] * 2 * math.pi).view(-1, 1, 1)
    t = (0.5 + 0.4 * (x * torch.cos(angle) + y * torch.sin(angle))).clamp(0, 1)[:, None]
    wall = first[:, :, None, None] + (second - first)[:, :, None, None] * t
    waves = 0
    for k in (3, 6):
        turn, rate, phase = (u[:, k + j].view(-1, 1, 1) for j in range(3))
        turn = turn * 2 * math.pi
        waves = waves + torch.sin((x * torch.cos(turn) + y * torch.sin(turn)) * (5 + 9 * rate) + 6.28 * phase)[:, None]
    tint = (uniform(seed, index, "tint", 3) * 0.6 + 0.7)[:, :, None, None]
    return wall + clutter * (0.16 * _clouds(seed, index, "wall noise", 5, 5, size) + 0.035 * waves) * tint


def landscape(seed: int, index: Tensor, size: int, clutter: float, horizon: Tensor) -> tuple[Tensor, Tensor]:
    """Sky, two ranges of hills and ground, (B, 3, S, S), for horizons (B,) in [-1, 1]; also the colour of the haze
    (B, 3)."""
    x, y = grid(size, index.device)
    u = uniform(seed, index, "land", 12)
    h = horizon.view(-1, 1, 1)
    sky, ground = _pick(SKIES, u[:, 0])[..., None, None], _pick(GROUNDS, u[:, 1])[..., None, None]
    haze = sky[:, 1]
    rise = ((y + 1) / (h + 1)).clamp(0, 1)[:, None]
    picture = sky[:, 0] + (haze - sky[:, 0]) * rise
    cloud = (_clouds(seed, index, "clouds", 5, 3, size) - 0.05).clamp(0, 0.8)
    picture = picture + (0.98 - picture) * cloud * (1.25 - rise) * min(1.0, 0.4 + 0.5 * clutter)
    edge = size / 2
    for k, tall in ((2, 0.2), (6, 0.1)):  # hills: waves of two lengths, the farther range first
        p = u[:, k : k + 4].view(-1, 4, 1, 1)
        top = tall * (
            0.4
            + p[:, 0]
            + 0.5 * torch.sin((2 + 2 * p[:, 1]) * x + 6.28 * p[:, 2])
            + 0.2 * torch.sin(7 * x + 6.28 * p[:, 3])
        )
        hill = ground[:, 1] * 0.72 + (haze - ground[:, 1] * 0.72) * (0.66 if k == 2 else 0.4)
        cover = (0.5 + (y - h + top) * edge).clamp(0, 1)[:, None]
        picture = picture + (hill - picture) * cover
    near = ((y - h) / (1 - h)).clamp(0, 1)[:, None]
    soil = ground[:, 1] + (ground[:, 0] - ground[:, 1]) * near
    furrow = torch.sin(
        9 / (near + 0.25) + 2.2 * x[:, None] * (u[:, 10].view(-1, 1, 1, 1) - 0.5) + 6.28 * u[:, 11].view(-1, 1, 1, 1)
    )
    soil = soil + clutter * (0.13 * _clouds(seed, index, "soil", 7, 4, size) + 0.03 * furrow) * (0.25 + 0.75 * near)
    soil = soil + (haze - soil) * 0.6 * (1 - near) ** 3
    cover = (0.5 + (y - h) * edge).clamp(0, 1)[:, None]
    return picture + (soil - picture) * cover, haze[:, :, 0, 0]


def mosaic(seed: int, index: Tensor, size: int, cells: int, palette: Tensor) -> Tensor:
    """cells x cells squares of random colours of a palette (C, 3), slightly greyed, of random brightness, turned and
    zoomed: (B, 3, S, S)."""
    x, y = grid(size, index.device)
    u = uniform(seed, index, "tiles", 3)
    palette = palette.to(index.device)
    tiles = palette[(uniform(seed, index, "tile colours", cells, cells) * len(palette)).long()].permute(0, 3, 1, 2)
    bright = 0.6 + 0.6 * uniform(seed, index, "tile brightness", 1, cells, cells)
    tiles = (tiles * 0.9 + 0.05) * bright
    turn, zoom = (u[:, 0] * 2 * math.pi).view(-1, 1, 1), 0.7 * (0.7 + 0.5 * u[:, 1]).view(-1, 1, 1)
    c, s = torch.cos(turn) * zoom, torch.sin(turn) * zoom
    at = torch.stack((x * c - y * s, x * s + y * c), -1)
    return torch.nn.functional.grid_sample(tiles, at, padding_mode="reflection", align_corners=False)


def grain(seed: int, index: Tensor, size: int) -> Tensor:
    """Film grain of standard deviation 1, the same for the three colours: (B, 1, S, S)."""
    key = mix((mix(index & 0xFFFFFFFF) + mix(torch.tensor(seed & 0xFFFFFFFF, device=index.device))) & 0xFFFFFFFF)
    bits = mix((key[:, None] + torch.arange(size * size, device=index.device) * 0x9E3779B1) & 0xFFFFFFFF)
    return (((bits >> 16) + (bits & 0xFFFF)) * (math.sqrt(6) / 65536) - math.sqrt(6)).float().view(-1, 1, size, size)
