"""Names that the Python blocks of the documentation take as given: a model, its loss and its data."""

import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
loss_function = torch.nn.functional.mse_loss
batches = [(torch.randn(4, 8), torch.randn(4, 1)) for _ in range(3)]
