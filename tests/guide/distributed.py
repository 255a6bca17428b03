import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

# Setup distributed
dist.init_process_group(backend="nccl")
local_rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(local_rank)

# Create model
model = HRMACTv1(config).cuda()
model = DDP(model, device_ids=[local_rank])

# Sparse embedding optimizer needs world_size
sparse_optimizer = CastedSparseEmbeddingSignSGD_Distributed(
    model.module.puzzle_emb.parameters(),
    world_size=dist.get_world_size(),
    lr=1e-3,
    weight_decay=1e-2,
)
