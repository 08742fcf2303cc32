"""`rpc.provisioner`: the capacity that is desired. Any replica answers."""

import msgspec

from common.db import Pool, transaction
from common.rpc import Call, Router
from provisioner import store


class Admin(msgspec.Struct, frozen=True):
    """What the routes work with."""

    pool: Pool


class Scale(msgspec.Struct, frozen=True):
    desired: list[store.Desired]


router: Router[Admin] = Router()


@router.route("GET", "/admin/scale")
async def get_scale(admin: Admin, call: Call) -> Scale:
    async with transaction(admin.pool) as connection:
        return Scale(await store.desired(connection))
