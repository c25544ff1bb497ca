"""`--download_weights true`: backbones from a server on this machine; never unasked."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading

import pytest
import torch

from fastgan import _sets_of_images, metrics
from fastgan.cli import main
from fastgan.losses import LPIPS, _backbones


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An empty cache of torch hub, and a server in place of PyTorch's; gives what was asked of it."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *arguments):
            pass

    files = tmp_path / "server"
    files.mkdir()
    handler = functools.partial(Handler, directory=str(files))
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{httpd.server_address[1]}/"
    monkeypatch.setattr(_backbones, "ADDRESS", address)
    monkeypatch.setattr(_sets_of_images, "INCEPTION_ADDRESS", address)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield files, asked
    httpd.shutdown()
    httpd.server_close()


def serve(files, monkeypatch, network="alexnet", seed=5):
    """Puts random weights of a network on the server, under a name with their hash."""
    features = _backbones.load_features(network, "test", weights=None, seed=seed)
    weights = {f"features.{key}": value for key, value in features.state_dict().items()}
    torch.save(weights, files / "weights")
    digest = hashlib.sha256((files / "weights").read_bytes()).hexdigest()
    name = f"{network}-{digest[:8]}.pth"
    (files / "weights").rename(files / name)
    monkeypatch.setitem(_backbones.FILES, network, name)
    return name, weights


def test_losses_download_what_is_missing_once(server, monkeypatch, tmp_path, capfd):
    files, asked = server
    name, weights = serve(files, monkeypatch)
    with pytest.raises(FileNotFoundError, match=f"download http://127.0.0.1:.*{name}"):
        LPIPS(net="alex")
    assert not asked
    loss = LPIPS(net="alex", download=True)
    assert torch.equal(loss.net.slice1[0].weight, weights["features.0.weight"])
    assert asked == [f"/{name}"] and (tmp_path / "hub" / "checkpoints" / name).is_file()
    output = capfd.readouterr()
    assert name in output.err and not output.out
    LPIPS(net="alex")
    assert len(asked) == 1


def test_a_file_that_is_not_what_its_name_says_is_refused(server, monkeypatch, tmp_path):
    files, _ = server
    name, _ = serve(files, monkeypatch)
    (files / name).write_bytes((files / name).read_bytes() + b"x")
    with pytest.raises(OSError, match=f"could not download http://127.0.0.1:.*{name} to .*hash"):
        LPIPS(net="alex", download=True)
    assert not list((tmp_path / "hub" / "checkpoints").glob("*.pth"))
    monkeypatch.setitem(_backbones.FILES, "alexnet", "alexnet-00000000.pth")
    with pytest.raises(OSError, match="could not download .*404"):
        LPIPS(net="alex", download=True)


def test_the_option_of_recipes(server, monkeypatch, photo_folder, tmp_path, capsys):
    files, asked = server
    name, _ = serve(files, monkeypatch)
    options = f"--train_path {photo_folder} --runs_path {tmp_path} --image_size 32 --secret_size 20"
    options += " --batch_size 2 --num_steps 1 --accelerator cpu --val_images 2 --lpips_loss_scale 1.5"
    command = ["train", "stegastamp", *options.split()]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("fastgan: error: --lpips_loss_scale 1.5: ") and name in error
    assert (
        "or have it downloaded: --download_weights true; or train without it: --lpips_loss_scale 0" in error
    )
    assert not asked
    assert main([*command, "--download_weights", "true"]) == 0
    assert asked == [f"/{name}"]


def test_evaluations_download_only_with_the_option(server, monkeypatch, capsys):
    files, asked = server
    name, _ = serve(files, monkeypatch)
    assert metrics.installed_lpips() is None and not asked
    assert metrics.installed_lpips(download=True) is not None and asked == [f"/{name}"]
    pytest.importorskip("torchmetrics")
    with pytest.raises(FileNotFoundError, match="FID needs Inception's weights"):
        metrics.FrechetDistance()
    with pytest.raises(OSError, match=f"could not download .*{_sets_of_images.INCEPTION} .*404"):
        metrics.FrechetDistance(download=True)
    assert asked[1:] == [f"/{_sets_of_images.INCEPTION}"]
