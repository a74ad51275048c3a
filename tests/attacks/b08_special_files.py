"""Leave pipes, sockets and sparse giants where the host expects results: reading them would hang or fill the memory."""

import json
import os
import socket

os.chdir(os.environ["M3_OUT"])
os.mkfifo("result.json")
os.makedirs("predictions")
os.mkfifo("predictions/answers.csv")
server = socket.socket(socket.AF_UNIX)
server.bind("model.safetensors")
os.mkdir("settings.json")
with open("metrics.json", "wb") as file:
    file.truncate(90 << 20)
print("ATTACK", json.dumps({"attack": "special_files", "breach": None, "detail": "breach if the host hangs"}))
